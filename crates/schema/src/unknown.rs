//! Naming fields nobody described, for `fieldValidation`.

use serde_json::Value;

use crate::node::Node;
use crate::path::Path;
use crate::prune::opaque;

/// Paths of all fields `node` does not describe (`spec.foo`, `spec.list[0].bar`), in the order of the object. What is
/// inside an unknown field is not looked at.
pub fn unknown_fields(node: Node<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(node, value, &Path::Root, &mut found);
    found
}

fn collect(node: Node<'_>, value: &Value, path: &Path<'_>, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !opaque(node) => {
            for (name, field) in fields {
                let path = path.field(name);
                match node.field(name) {
                    Some(below) => collect(below, field, &path, found),
                    None if node.preserves_unknown_fields() => {}
                    None => found.push(path.to_string()),
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = node.items() {
                items.iter().enumerate().for_each(|(i, item)| collect(below, item, &path.index(i), found));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Schema};
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_where_they_are() {
        let text = || Schema::of(Kind::String);
        let item = Schema::object([("name", text())]);
        let spec = Schema::object([("list", Schema::list(item)), ("map", Schema::map(text()))]);
        let free = Schema { kind: Kind::Object, ..Schema::anything() };
        let schema = Schema::object([("spec", spec), ("free", free), ("text", text())]);
        let value = json!({
            "spec": {"foo": {"deep": 1}, "list": [{"name": "a"}, {"nom": "b"}], "map": {"any": "x"}},
            "free": {"whatever": 1},
            "text": {"not": "a string"},
            "bar": 1,
        });
        let mut found = unknown_fields(Node::custom(&schema), &value);
        found.sort();
        assert_eq!(found, ["bar", "spec.foo", "spec.list[1].nom"]);
    }
}
