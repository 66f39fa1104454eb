//! Filling in what the schema says an absent field is.

use serde_json::Value;

use crate::node::Node;

/// Sets absent fields to their defaults, nested ones too. A null in a field that has a default and is not nullable
/// counts as absent. Nothing is created for the sake of a default below it.
pub fn default(node: Node<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, below) in node.properties() {
                let Some(default) = below.default() else { continue };
                let absent = match fields.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !below.nullable(),
                };
                if absent {
                    fields.insert(name.to_owned(), default.clone());
                }
            }
            for (name, field) in fields {
                let Some(below) = node.field(name) else { continue };
                replace_null(below, field);
                self::default(below, field);
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items() else { return };
            for item in items {
                replace_null(below, item);
                self::default(below, item);
            }
        }
        _ => {}
    }
}

/// A null that may not be one becomes the default, in maps and lists too.
fn replace_null(node: Node<'_>, value: &mut Value) {
    if value.is_null()
        && !node.nullable()
        && let Some(default) = node.default()
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Schema;
    use serde_json::json;

    #[test]
    fn defaults_fill_what_is_absent() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "a": {"type": "integer", "default": 1},
            "b": {"type": "object", "default": {}, "properties": {"c": {"type": "string", "default": "x"}}},
            "d": {"type": "object", "properties": {"e": {"type": "string", "default": "y"}}},
            "n": {"type": "string", "nullable": true, "default": "z"},
            "l": {"type": "array", "items": {"type": "object", "properties": {"f": {"type": "boolean", "default": true}}}},
            "m": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
        }}))
        .unwrap();
        for (value, want) in [
            (json!({}), json!({"a": 1, "b": {"c": "x"}, "n": "z"})),
            (json!({"a": null, "b": {}, "n": null}), json!({"a": 1, "b": {"c": "x"}, "n": null})),
            (
                json!({"a": 2, "b": {"c": "q"}, "d": {}, "n": "n"}),
                json!({"a": 2, "b": {"c": "q"}, "d": {"e": "y"}, "n": "n"}),
            ),
            (
                json!({"a": 0, "b": {"c": ""}, "n": "n", "l": [{}, {"f": false}], "m": {"k": null, "j": 1}}),
                json!({"a": 0, "b": {"c": ""}, "n": "n", "l": [{"f": true}, {"f": false}], "m": {"k": 7, "j": 1}}),
            ),
        ] {
            let mut seen = value.clone();
            default(Node::custom(&schema), &mut seen);
            assert_eq!(seen, want, "{value}");
            default(Node::custom(&schema), &mut seen);
            assert_eq!(seen, want, "defaulting twice changes nothing: {value}");
        }
    }
}
