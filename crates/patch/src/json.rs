//! JSON patch (RFC 6902).
//!
//! Two operations let a small patch build a large object, and the RFC sets no limit: `copy` can double the object,
//! `move` and `add` can nest it one level deeper each time. Both are bounded here.

use json_patch::{Patch, PatchOperation};
use osc_schema::{MAX_DEPTH, within_depth};
use serde_json::Value;

use crate::PatchError;

/// Operations one patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// Bytes all `copy` operations of one patch may add; as much as a request body.
const MAX_COPIED: usize = 3 << 20;

/// Levels an object may nest between two operations; the outcome may nest [`MAX_DEPTH`].
const MAX_DEPTH_BETWEEN: usize = 2 * MAX_DEPTH;

/// Carries out the operations in `body`, a JSON list, one after another on a copy of `object`.
pub fn json_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let Patch(operations) = serde_json::from_slice(body).map_err(PatchError::NotAPatch)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { limit: MAX_OPERATIONS, count: operations.len() });
    }
    let mut object = object.clone();
    let mut copied = 0;
    let mut deepest = depth(&object);
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, size);
            if copied > MAX_COPIED {
                return Err(PatchError::CopiesTooLarge { index, limit: MAX_COPIED });
            }
        }
        deepest = depth_after(deepest, operation);
        if deepest > MAX_DEPTH_BETWEEN {
            // The estimate only grows: look how deep the object really is.
            deepest = depth_after(depth(&object), operation);
            if deepest > MAX_DEPTH_BETWEEN {
                return Err(PatchError::TooDeep);
            }
        }
        json_patch::patch_unsafe(&mut object, std::slice::from_ref(operation))
            .map_err(|error| PatchError::Operation { index, path: operation.path().to_string(), source: error.kind })?;
    }
    if within_depth(&object) { Ok(object) } else { Err(PatchError::TooDeep) }
}

/// Upper bound of the depth of an object after `operation`, if it was at most `deepest` before.
fn depth_after(deepest: usize, operation: &PatchOperation) -> usize {
    let level = operation.path().count();
    match operation {
        PatchOperation::Add(add) => deepest.max(level + depth(&add.value)),
        PatchOperation::Replace(replace) => deepest.max(level + depth(&replace.value)),
        PatchOperation::Move(_) | PatchOperation::Copy(_) => deepest + level,
        PatchOperation::Remove(_) | PatchOperation::Test(_) => deepest,
    }
}

/// Levels `value` nests. Recursion ends soon because every value here came from a decoder with a limit, or was
/// bounded by [`MAX_DEPTH_BETWEEN`].
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// About as many bytes as `value` has when written down.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size(item) + 1).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, field)| name.len() + size(field) + 4).sum::<usize>(),
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PatchErrorKind;
    use serde_json::json;

    fn patched(object: Value, operations: Value) -> Result<Value, PatchErrorKind> {
        json_patch(&object, operations.to_string().as_bytes()).map_err(|error| error.kind())
    }

    #[test]
    fn operations_do_what_the_rfc_says() {
        use PatchErrorKind::{Malformed, Unprocessable};
        for (object, operations, want) in [
            (json!({"a": 1}), json!([]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), Ok(json!({"a": 1, "b": 2}))),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), Ok(json!({"a": [1, 2, 3]}))),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(json!({"a": [1, 2]}))),
            (json!({"a": 1}), json!([{"op": "remove", "path": "/a"}]), Ok(json!({}))),
            (json!({"a": 1}), json!([{"op": "remove", "path": "/b"}]), Err(Unprocessable)),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": 2}]), Ok(json!({"a": 2}))),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/b", "value": 2}]), Err(Unprocessable)),
            (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(json!({"b": 1}))),
            (json!({"a": {}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(Unprocessable)),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": 1, "b": 1}))),
            (json!({"x/y": {"m~n": 1}}), json!([{"op": "remove", "path": "/x~1y/m~0n"}]), Ok(json!({"x/y": {}}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), Err(Unprocessable)),
            (json!({}), json!({"op": "add", "path": "/a", "value": 1}), Err(Malformed)),
            (json!({}), json!([{"op": "grow", "path": "/a"}]), Err(Malformed)),
            (json!({}), json!([{"op": "add", "path": "a", "value": 1}]), Err(Malformed)),
            (json!({}), json!([{"op": "add", "path": "/a"}]), Err(Malformed)),
        ] {
            assert_eq!(patched(object.clone(), operations.clone()), want, "{object} {operations}");
        }
    }

    #[test]
    fn ten_thousand_operations_are_enough() {
        let operation = json!({"op": "add", "path": "/a", "value": 1});
        let of = |count| Value::from(vec![operation.clone(); count]);
        assert_eq!(patched(json!({}), of(MAX_OPERATIONS)), Ok(json!({"a": 1})));
        assert_eq!(patched(json!({}), of(MAX_OPERATIONS + 1)), Err(PatchErrorKind::TooLarge));
        let error = json_patch(&json!({}), of(MAX_OPERATIONS + 1).to_string().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }

    #[test]
    fn copies_cannot_multiply_without_end() {
        let double = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 100];
        let error = json_patch(&json!({"a": [1, 2, 3]}), Value::from(double).to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, PatchError::CopiesTooLarge { .. } | PatchError::TooDeep), "{error}");
        let wide: Vec<Value> =
            (0..100).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
        let error = json_patch(&json!({"a": "x".repeat(1 << 16)}), Value::from(wide).to_string().as_bytes());
        assert!(matches!(error, Err(PatchError::CopiesTooLarge { index: 47, .. })), "{error:?}");
    }

    #[test]
    fn operations_cannot_nest_without_end() {
        let nest: Vec<Value> = (0..5000)
            .flat_map(|_| {
                [
                    json!({"op": "add", "path": "/n", "value": {}}),
                    json!({"op": "move", "from": "/x", "path": "/n/x"}),
                    json!({"op": "move", "from": "/n", "path": "/x"}),
                ]
            })
            .take(MAX_OPERATIONS)
            .collect();
        let error = json_patch(&json!({"x": {}}), Value::from(nest).to_string().as_bytes());
        assert!(matches!(error, Err(PatchError::TooDeep)), "{error:?}");
        // Moving things to and fro is no reason to refuse.
        let swap: Vec<Value> = (0..2000)
            .flat_map(|_| {
                [json!({"op": "move", "from": "/a", "path": "/b"}), json!({"op": "move", "from": "/b", "path": "/a"})]
            })
            .collect();
        assert_eq!(patched(json!({"a": {"c": 1}}), Value::from(swap)), Ok(json!({"a": {"c": 1}})));
    }
}
