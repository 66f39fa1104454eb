//! One thing that is wrong with an object, worded as Kubernetes words it.

use serde_json::Value;

/// One cause of an `Invalid` (422) answer: a field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, `FieldValueInvalid` and its siblings.
    pub reason: &'static str,
    /// What is wrong, without the field: `Invalid value: 0: must be positive`.
    pub message: String,
    /// Path of the field, `<nil>` for the object itself.
    pub field: String,
}

/// Text of a value inside a message: strings quoted, everything else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        other => other.to_string(),
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

impl Cause {
    fn new(reason: &'static str, field: impl ToString, message: String) -> Self {
        Self { reason, message, field: field.to_string() }
    }

    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(field: impl ToString, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, with_detail(format!("Invalid value: {}", shown(value)), detail))
    }

    /// `Required value[: <detail>]`.
    pub fn required(field: impl ToString, detail: &str) -> Self {
        Self::new("FieldValueRequired", field, with_detail("Required value".to_owned(), detail))
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    pub fn not_supported<S: AsRef<str>>(field: impl ToString, value: &Value, supported: &[S]) -> Self {
        let mut message = format!("Unsupported value: {}", shown(value));
        if !supported.is_empty() {
            let quoted: Vec<String> = supported.iter().map(|s| Value::from(s.as_ref()).to_string()).collect();
            message.push_str(": supported values: ");
            message.push_str(&quoted.join(", "));
        }
        Self::new("FieldValueNotSupported", field, message)
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: impl ToString, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", shown(value)))
    }

    /// `Forbidden: <detail>`.
    pub fn forbidden(field: impl ToString, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, with_detail("Forbidden".to_owned(), detail))
    }

    /// `Invalid value: <value>: <detail>`, for a value of the wrong type.
    pub fn type_invalid(field: impl ToString, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueTypeInvalid", field, with_detail(format!("Invalid value: {}", shown(value)), detail))
    }

    /// `Too long: may not be more than <max> bytes`.
    pub fn too_long(field: impl ToString, max: u64) -> Self {
        Self::new("FieldValueTooLong", field, format!("Too long: may not be more than {max} bytes"))
    }

    /// `Too many: <count>: must have at most <max> items`.
    pub fn too_many(field: impl ToString, count: usize, max: u64) -> Self {
        Self::new("FieldValueTooMany", field, format!("Too many: {count}: must have at most {max} items"))
    }
}

/// As in the message of a Status: `spec.replicas: Invalid value: …`.
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_read_like_those_of_kubernetes() {
        for (cause, want) in [
            (Cause::invalid("a", &json!("x"), "must be y"), r#"a: Invalid value: "x": must be y"#),
            (Cause::invalid("a", &json!(3), ""), "a: Invalid value: 3"),
            (Cause::invalid("a", &json!(null), "no"), r#"a: Invalid value: "null": no"#),
            (Cause::required("a.b", ""), "a.b: Required value"),
            (
                Cause::not_supported("a", &json!("x"), &["a", "b"]),
                r#"a: Unsupported value: "x": supported values: "a", "b""#,
            ),
            (Cause::duplicate("a[1]", &json!({"k": 1})), r#"a[1]: Duplicate value: {"k":1}"#),
            (Cause::forbidden("a", "must not be set"), "a: Forbidden: must not be set"),
            (Cause::too_long("a", 3), "a: Too long: may not be more than 3 bytes"),
            (Cause::too_many("a", 4, 3), "a: Too many: 4: must have at most 3 items"),
        ] {
            assert_eq!(cause.to_string(), want);
        }
    }
}
