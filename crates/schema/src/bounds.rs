//! How deep an object may nest.
//!
//! Everything here recurses along objects or schemas. The JSON and YAML decoders refuse deep nesting by themselves;
//! whoever builds a value by other means (JSON Patch can add a level with every operation) asks [`within_depth`].

use serde_json::Value;

/// Levels an object or a schema may nest; the limit of the JSON decoder too.
pub const MAX_DEPTH: usize = 128;

/// Whether `value` nests at most [`MAX_DEPTH`] levels. Looks no deeper than that.
pub fn within_depth(value: &Value) -> bool {
    fn fits(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left > 0 && items.iter().all(|item| fits(item, left - 1)),
            Value::Object(fields) => left > 0 && fields.values().all(|field| fits(field, left - 1)),
            _ => true,
        }
    }
    fits(value, MAX_DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_is_counted_in_containers() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(within_depth(&nested(MAX_DEPTH)));
        assert!(!within_depth(&nested(MAX_DEPTH + 1)));
    }
}
