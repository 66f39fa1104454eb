//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use crate::{PatchError, json::type_of};

/// Merges `patch` into a copy of `object`: fields of objects are merged, `null` removes a field, everything else
/// replaces. The patch of an object is an object.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(changes) = patch else { return Err(PatchError::NotAnObject { found: type_of(patch) }) };
    let mut object = object.clone();
    merge_into(&mut object, changes);
    Ok(object)
}

fn merge_into(target: &mut Value, changes: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in changes {
        match change {
            Value::Null => drop(fields.remove(name)),
            Value::Object(changes) => merge_into(fields.entry(name).or_insert(Value::Null), changes),
            other => drop(fields.insert(name.clone(), other.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_merge_and_null_removes() {
        for (object, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": ["c", "d"]}), json!({"a": ["c", "d"]})),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}})),
            (json!({"a": "x"}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}})),
            (json!({}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!({"a": [{"b": 1}]}), json!({"a": [{"c": null}]}), json!({"a": [{"c": null}]})),
        ] {
            assert_eq!(merge(&object, &patch).unwrap(), want, "{object} {patch}");
        }
    }

    #[test]
    fn a_patch_is_an_object() {
        for patch in [json!(null), json!([]), json!("x"), json!(1)] {
            assert!(matches!(merge(&json!({}), &patch), Err(PatchError::NotAnObject { .. })), "{patch}");
        }
    }
}
