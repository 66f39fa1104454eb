//! The verdict.

use serde_json::{Value, json};

/// Answer to an AdmissionReview, knowing how many KataConfigs exist.
pub(super) fn answer(asked: &Value, existing: Result<usize, String>) -> Value {
    let uid = asked.pointer("/request/uid").and_then(Value::as_str).unwrap_or_default();
    let creates = asked.pointer("/request/operation").and_then(Value::as_str) == Some("CREATE");
    let refusal = match existing {
        _ if !creates => None,
        Ok(0) => None,
        Ok(_) => Some("A KataConfig instance already exists, refusing to create a duplicate".to_owned()),
        Err(error) => Some(format!("Failed to list KataConfig custom resources: {error}")),
    };
    let mut response = json!({"uid": uid, "allowed": refusal.is_none()});
    if let Some(message) = refusal {
        response["status"] = json!({"code": 403, "reason": "Forbidden", "message": message});
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singleton_check_refuses_with_one_and_with_more() {
        let duplicate = Some("A KataConfig instance already exists, refusing to create a duplicate");
        for (operation, existing, wanted) in [
            ("CREATE", Ok(0), None),
            ("CREATE", Ok(1), duplicate),
            ("CREATE", Ok(2), duplicate),
            ("UPDATE", Ok(2), None),
            ("CREATE", Err("no API".to_owned()), Some("Failed to list KataConfig custom resources: no API")),
        ] {
            let asked = json!({"request": {"uid": "7", "operation": operation}});
            let answer = answer(&asked, existing.clone());
            let message = answer.pointer("/response/status/message").and_then(Value::as_str);
            assert_eq!(message, wanted, "{operation} with {existing:?}");
            assert_eq!(answer.pointer("/response/allowed"), Some(&json!(wanted.is_none())));
            assert_eq!(answer.pointer("/response/uid"), Some(&json!("7")));
        }
    }
}
