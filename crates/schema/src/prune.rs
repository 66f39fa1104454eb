//! Dropping fields nobody described.

use serde_json::Value;

use crate::meta::OBJECT_META;
use crate::model::Kind;
use crate::node::Node;

/// Removes every field `node` does not describe, except where unknown fields are kept. Inside object metadata, which
/// is the same for all kinds, nulls go too: there they mean absence.
pub fn prune(node: Node<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) if !opaque(node) => {
            let keep = node.preserves_unknown_fields();
            fields.retain(|name, _| keep || node.field(name).is_some());
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    prune(below, field);
                }
            }
            if node.site().reference.as_deref() == Some(OBJECT_META) {
                drop_nulls(node, value);
            }
        }
        Value::Array(items) => {
            if let Some(below) = node.items() {
                items.iter_mut().for_each(|item| prune(below, item));
            }
        }
        _ => {}
    }
}

/// Whether the schema says nothing about fields: a bare `type: string`, or no type at all as in a definition that is
/// a choice between others. An object there is wrong or none of our business, and validation will tell which.
pub(crate) fn opaque(node: Node<'_>) -> bool {
    node.kind() != Kind::Object && node.schema().properties.is_empty() && node.schema().additional.is_none()
}

/// Removes nulls from fields that are described and not nullable: for built-in kinds null means absent.
pub fn drop_nulls(node: Node<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| !field.is_null() || node.field(name).is_none_or(Node::nullable));
            for (name, field) in fields {
                if let Some(below) = node.field(name) {
                    drop_nulls(below, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = node.items() {
                items.iter_mut().for_each(|item| drop_nulls(below, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Schema;
    use serde_json::json;

    fn pruned(schema: Value, mut value: Value) -> Value {
        let schema = Schema::from_openapi(&schema).unwrap();
        prune(Node::custom(&schema), &mut value);
        value
    }

    #[test]
    fn only_described_fields_survive() {
        let object = |fields: Value| json!({"type": "object", "properties": fields});
        let text = json!({"type": "string"});
        for (schema, value, want) in [
            (object(json!({"a": text})), json!({"a": "x", "b": 1}), json!({"a": "x"})),
            (
                object(json!({"l": {"type": "array", "items": object(json!({"a": text}))}})),
                json!({"l": [{"a": "x", "b": 1}, {"b": 1}]}),
                json!({"l": [{"a": "x"}, {}]}),
            ),
            (
                json!({"type": "object", "additionalProperties": object(json!({"a": text}))}),
                json!({"k": {"a": "x", "b": 1}}),
                json!({"k": {"a": "x"}}),
            ),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                       "properties": {"in": object(json!({"a": text}))}}),
                json!({"b": {"c": 1}, "in": {"a": "x", "b": 1}}),
                json!({"b": {"c": 1}, "in": {"a": "x"}}),
            ),
            (object(json!({})), json!({"a": {"b": 1}}), json!({})),
        ] {
            assert_eq!(pruned(schema.clone(), value), want, "{schema}");
        }
    }

    #[test]
    fn metadata_is_pruned_like_everywhere() {
        let schema = Schema::object([("metadata", Schema::refer(OBJECT_META))]);
        let mut value = json!({"metadata": {"name": "a", "nom": "b", "creationTimestamp": null, "labels": {"x": "y"}}});
        prune(Node::custom(&schema), &mut value);
        assert_eq!(value, json!({"metadata": {"name": "a", "labels": {"x": "y"}}}));
    }
}
