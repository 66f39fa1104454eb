//! JSON merge patch (RFC 7386).

use serde_json::Value;

use crate::PatchError;

/// Merges `patch` into a copy of `object`: fields of objects are merged, `null` removes a field, everything else
/// replaces. The patch of an object is an object.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::NotAnObject);
    }
    let mut object = object.clone();
    json_patch::merge(&mut object, patch);
    Ok(object)
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
            assert!(matches!(merge(&json!({}), &patch), Err(PatchError::NotAnObject)), "{patch}");
        }
    }
}
