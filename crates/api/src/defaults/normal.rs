//! One form for what can be written in several ways.

use osc_schema::{Kind, MAX_DEPTH, Node};
use serde_json::{Number, Value};

use crate::Quantity;

/// The definition of amounts such as `100m`.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Brings a built-in object into canonical form: nulls are absent, quantities are canonical
/// strings, whole numbers have no fraction.
///
/// What does not fit its schema stays for validation to complain about.
pub fn normalize(node: Node<'_>, value: &mut Value) {
    walk(node, value, MAX_DEPTH);
}

fn walk(node: Node<'_>, value: &mut Value, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    if node.site().reference.as_deref() == Some(QUANTITY) {
        if let Ok(quantity) = Quantity::from_value(value) {
            *value = quantity.to_string().into();
        }
        return;
    }
    match value {
        Value::Object(map) => {
            if node.preserves_unknown_fields() {
                return;
            }
            let may_be_null = |name: &String| {
                node.field(name).is_none_or(|field| field.kind() == Kind::Any && field.preserves_unknown_fields())
            };
            map.retain(|name, value| !value.is_null() || may_be_null(name));
            for (name, value) in map.iter_mut() {
                if let Some(field) = node.field(name) {
                    walk(field, value, depth);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = node.items() else { return };
            items.iter_mut().for_each(|value| walk(item, value, depth));
        }
        Value::Number(number) if node.kind() == Kind::Integer => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        _ => {}
    }
}

/// `3` for `3.0`.
fn whole(number: &Number) -> Option<Number> {
    if !number.is_f64() {
        return None;
    }
    format!("{:.0}", number.as_f64()?)
        .parse::<i64>()
        .ok()
        .map(Number::from)
        .filter(|whole| whole.as_f64() == number.as_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definitions::schema_of_kind;

    #[test]
    fn nulls_quantities_and_whole_numbers_have_one_form() {
        let node = schema_of_kind("", "v1", "Pod").expect("a built-in");
        let mut pod = json!({
            "metadata": {"creationTimestamp": null, "annotations": {"a": null}},
            "spec": {
                "containers": [{"name": "a", "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}}, "ports": [{"containerPort": 80.0}]}],
                "overhead": {"cpu": "bad"},
            },
        });
        normalize(node, &mut pod);
        let want = json!({
            "metadata": {"annotations": {}},
            "spec": {
                "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}, "ports": [{"containerPort": 80}]}],
                "overhead": {"cpu": "bad"},
            },
        });
        assert_eq!(pod, want);
    }
}
