//! Names of rendered configurations: equal content, equal name.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::spec::Spec;

/// Keeps our names apart from hashes of the same bytes made elsewhere.
const SALT: &[u8] = b"osc-machine-config/1\n";

/// `rendered-<pool>-<32 hex digits>`; the digits depend on the spec only.
pub fn rendered_name(pool: &str, spec: &Spec) -> String {
    let mut hash = Sha256::new();
    hash.update(SALT);
    hash.update(canonical(&spec.to_value()));
    format!("rendered-{pool}-{}", hex::encode(&hash.finalize()[..16]))
}

/// JSON with sorted keys, whatever order the parser keeps.
fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (name, value) in sorted {
                let _ = write!(out, "{},", Value::from(name.as_str())); // a string takes everything
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            items.iter().for_each(|item| write_canonical(item, out));
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar},");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_of_keys_does_not_matter_and_nesting_does() {
        let (a, b): (Value, Value) =
            (serde_json::from_str(r#"{"a":1,"b":[2]}"#).unwrap(), serde_json::from_str(r#"{"b":[2],"a":1}"#).unwrap());
        assert_eq!(canonical(&a), canonical(&b));
        assert_ne!(canonical(&json!([[1], 2])), canonical(&json!([[1, 2]])));
        assert_ne!(canonical(&json!({"a": {"b": 1}})), canonical(&json!({"a": {}, "b": 1})));
    }

    #[test]
    fn the_name_is_stable_across_releases() {
        // A changed name rolls every node of every cluster at the next upgrade.
        let name = rendered_name("worker", &Spec::default());
        assert_eq!(name, "rendered-worker-428128066baa1875993cffa695e1fa64");
        assert_eq!(rendered_name("p", &Spec::default())[11..], name[16..]);
    }
}
