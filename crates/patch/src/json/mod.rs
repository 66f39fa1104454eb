//! JSON patch (RFC 6902), as Kubernetes reads it.
//!
//! Two operations let a small patch build a large object, and the RFC sets no limit: `copy` can double the object,
//! `move` and `add` can nest it one level deeper each time. Both are bounded here.

mod error;
mod operation;
mod place;

use osc_schema::{MAX_DEPTH, within_depth};
use serde_json::Value;

pub use self::error::{OperationCause, OperationError};
use self::operation::Operation;
pub(crate) use self::operation::type_of;
use crate::PatchError;

/// Operations one patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// Bytes all `copy` operations of one patch may add; as much as a request body.
const MAX_COPIED: usize = 3 << 20;

/// Levels an object may nest between two operations; the outcome may nest [`MAX_DEPTH`].
const MAX_DEPTH_BETWEEN: usize = 2 * MAX_DEPTH;

/// Carries out the operations in `body`, a JSON list, one after another on a copy of `object`.
pub fn json_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(body).map_err(PatchError::NotJson)?;
    let operations = operations(&patch)?;
    let mut object = object.clone();
    let mut copied = 0;
    let mut deepest = depth(&object);
    for (index, operation) in operations.iter().enumerate() {
        copied += operation.copied(&mut object).and_then(|place| place.get().map(size).ok()).unwrap_or_default();
        if copied > MAX_COPIED {
            return Err(PatchError::CopiesTooLarge { index, limit: MAX_COPIED, size: copied });
        }
        deepest = depth_after(deepest, operation);
        if deepest > MAX_DEPTH_BETWEEN {
            // The estimate only grows: look how deep the object really is.
            deepest = depth_after(depth(&object), operation);
            if deepest > MAX_DEPTH_BETWEEN {
                return Err(PatchError::TooDeep);
            }
        }
        operation.apply(&mut object).map_err(|source| PatchError::Operation { index, source })?;
    }
    if within_depth(&object) { Ok(object) } else { Err(PatchError::TooDeep) }
}

fn operations(patch: &Value) -> Result<Vec<Operation<'_>>, PatchError> {
    let list = match patch {
        Value::Array(list) => list.as_slice(),
        // No operations to the language Kubernetes is written in.
        Value::Null => &[],
        other => return Err(PatchError::NotAList { found: type_of(other) }),
    };
    if list.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { limit: MAX_OPERATIONS, count: list.len() });
    }
    list.iter().map(operation).collect()
}

fn operation(item: &Value) -> Result<Operation<'_>, PatchError> {
    match item {
        Value::Object(fields) => Ok(Operation(fields)),
        other => Err(PatchError::NotAnOperation { found: type_of(other) }),
    }
}

/// Upper bound of the depth of an object after `operation`, if it was at most `deepest` before.
fn depth_after(deepest: usize, operation: &Operation<'_>) -> usize {
    match operation.kind() {
        "add" | "replace" => deepest.max(operation.level() + operation.value().map_or(0, depth)),
        "move" | "copy" => deepest + operation.level(),
        _ => deepest,
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
    use std::error::Error;

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
            (json!({"a": 1}), json!([{"op": "replace", "path": "/b", "value": 2}]), Ok(json!({"a": 1, "b": 2}))),
            (json!({"a": [1, 2]}), json!([{"op": "replace", "path": "/a/-1", "value": 3}]), Ok(json!({"a": [1, 3]}))),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 2}}]), Ok(json!({"b": 2}))),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-2"}]), Ok(json!({"a": [2]}))),
            (json!({"a": [1, 2]}), json!([{"op": "add", "path": "/a/-1", "value": 3}]), Ok(json!({"a": [1, 2, 3]}))),
            (json!({"a": 1}), json!([{"op": "add", "path": "/b"}]), Ok(json!({"a": 1, "b": null}))),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/b", "path": "/c"}]), Ok(json!({"a": 1, "c": null}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/b", "value": null}]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/b"}]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "", "value": {"a": 1}}]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!(null), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(json!({"b": 1}))),
            (json!({"a": {}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(Unprocessable)),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": 1, "b": 1}))),
            (json!({"x/y": {"m~n": 1}}), json!([{"op": "remove", "path": "/x~1y/m~0n"}]), Ok(json!({"x/y": {}}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), Ok(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]), Err(Unprocessable)),
            (json!({}), json!({"op": "add", "path": "/a", "value": 1}), Err(Malformed)),
            (json!({}), json!(["add"]), Err(Malformed)),
            (json!({}), json!([{"op": "grow", "path": "/a"}]), Err(Unprocessable)),
            (json!({}), json!([{"op": "add", "path": "a", "value": 1}]), Err(Unprocessable)),
        ] {
            assert_eq!(patched(object.clone(), operations.clone()), want, "{object} {operations}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_kubernetes() {
        let object = json!({"a": {"b": 1}, "l": [1, 2], "n": null});
        for (operation, want) in [
            (json!({"op": "grow", "path": "/a"}), "Unexpected kind: grow"),
            (json!({"path": "/a"}), "Unexpected kind: unknown"),
            (json!({"op": "add", "value": 1}), "add operation failed to decode path: missing value"),
            (json!({"op": "remove", "path": 1}), "remove operation failed to decode path: missing value"),
            (
                json!({"op": "replace", "value": 1}),
                "replace operation failed to decode path: operation missing path field: missing value",
            ),
            (
                json!({"op": "test", "path": 1}),
                "test operation failed to decode path: json: cannot unmarshal number into Go value of type string",
            ),
            (
                json!({"op": "move", "path": "/c"}),
                "move operation failed to decode from: operation, missing from field: missing value",
            ),
            (
                json!({"op": "add", "path": "/x/y", "value": 1}),
                "add operation does not apply: doc is missing path: \"/x/y\": missing value",
            ),
            (
                json!({"op": "add", "path": "/n/y", "value": 1}),
                "add operation does not apply: doc is missing path: \"/n/y\": missing value",
            ),
            (
                json!({"op": "add", "path": "/l/x", "value": 1}),
                "error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": \
                 invalid syntax",
            ),
            (
                json!({"op": "add", "path": "/l/4", "value": 1}),
                "error in add for path: '/l/4': Unable to access invalid index: 4: invalid index referenced",
            ),
            (
                json!({"op": "remove", "path": "/x"}),
                "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                json!({"op": "remove", "path": "/a/b/c"}),
                "remove operation does not apply: doc is missing path: \"/a/b/c\": missing value",
            ),
            (
                json!({"op": "remove", "path": "/l/-3"}),
                "error in remove for path: '/l/-3': Unable to access invalid index: -3: invalid index referenced",
            ),
            (
                json!({"op": "replace", "path": "/x/y", "value": 1}),
                "replace operation does not apply: doc is missing path: /x/y: missing value",
            ),
            (
                json!({"op": "replace", "path": "/l/2", "value": 1}),
                "replace operation does not apply: doc is missing key: /l/2: missing value",
            ),
            (json!({"op": "replace", "path": "", "value": 1}), "replace operation value must be object or array"),
            (
                json!({"op": "move", "from": "/a/x", "path": "/c"}),
                "error in move for path: 'x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                json!({"op": "move", "from": "/a", "path": "/a/b"}),
                "move operation does not apply: doc is missing destination path: /a/b: missing value",
            ),
            (
                json!({"op": "copy", "from": "/x/y", "path": "/c"}),
                "copy operation does not apply: doc is missing from path: /x/y: missing value",
            ),
            (
                json!({"op": "copy", "from": "/l/99999999999999999999", "path": "/c"}),
                "error in copy for from: '/l/99999999999999999999': strconv.Atoi: parsing \"99999999999999999999\": \
                 value out of range",
            ),
            (
                json!({"op": "copy", "from": "/a", "path": "/l/9"}),
                "error while adding value during copy: Unable to access invalid index: 9: invalid index referenced",
            ),
            (json!({"op": "test", "path": "/a/b", "value": 2}), "testing value /a/b failed: test failed"),
            (json!({"op": "test", "path": "/a/b"}), "testing value /a/b failed: test failed"),
            (
                json!({"op": "test", "path": "/x/y", "value": 2}),
                "test operation does not apply: is missing path: /x/y: missing value",
            ),
            (
                json!({"op": "test", "path": "/l/2", "value": 2}),
                "error in test for path: '/l/2': Unable to access invalid index: 2: invalid index referenced",
            ),
        ] {
            let patch = json!([{"op": "test", "path": "/a/b", "value": 1}, operation]).to_string();
            match json_patch(&object, patch.as_bytes()) {
                Err(PatchError::Operation { index: 1, source }) => {
                    let cause = source.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                    assert_eq!(format!("{source}{cause}"), want, "{patch}");
                }
                other => panic!("{patch}: {other:?}"),
            }
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
