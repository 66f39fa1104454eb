//! From the body of a request to an object of the kind served there.

use osc_api::status::Status;
use osc_schema::unknown_fields;
use serde_json::Value;

use crate::{
    call::Call,
    request::{
        body::{self, Decoded},
        query::FieldValidation,
    },
    resources::Served,
};

/// Reads the body of a call as an object of its own resource.
pub(crate) fn object(call: &Call) -> Result<Value, Status> {
    let accepted = if call.served.custom.is_some() { body::CUSTOM } else { body::BUILT_IN };
    let decoded = body::decode(body::encoding(&call.headers, accepted)?, &call.body)?;
    kind(&call.served.api_version, &call.served.resource.kind, decoded)
        .and_then(|decoded| fields(call, &call.served, decoded))
}

/// Reads the body of a call as an object of a built-in kind, whichever the resource.
pub(crate) fn foreign(call: &Call, api_version: &str, name: &str) -> Result<Value, Status> {
    let decoded = body::decode(body::encoding(&call.headers, body::BUILT_IN)?, &call.body)?;
    Ok(kind(api_version, name, decoded)?.value)
}

/// Sets `apiVersion` and `kind` where they are missing, refuses others.
fn kind(api_version: &str, kind: &str, mut decoded: Decoded) -> Result<Decoded, Status> {
    let Some(object) = decoded.value.as_object_mut() else {
        return Err(Status::bad_request("the body is not an object"));
    };
    for (field, want) in [("apiVersion", api_version), ("kind", kind)] {
        let given = object.get(field).and_then(Value::as_str).unwrap_or_default();
        if given.is_empty() {
            object.insert(field.into(), want.into());
        } else if given != want {
            return Err(mismatch(field, given, want));
        }
    }
    Ok(decoded)
}

fn mismatch(field: &str, given: &str, want: &str) -> Status {
    let what = if field == "kind" { "kind" } else { "API version" };
    Status::bad_request(format!("the {what} in the data ({given}) does not match the expected {what} ({want})"))
}

/// Refuses, reports or forgets fields that mean nothing.
fn fields(call: &Call, served: &Served, decoded: Decoded) -> Result<Value, Status> {
    let validation = call.query.field_validation()?;
    if validation != FieldValidation::Ignore {
        let problems = problems(served, &decoded);
        verdict(call, served, validation, problems)?;
    }
    Ok(decoded.value)
}

/// Unknown and repeated fields, in words.
pub(crate) fn problems(served: &Served, decoded: &Decoded) -> Vec<String> {
    let repeated = decoded.duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    let unknown = unknown_fields(served.node(), &decoded.value);
    repeated.chain(unknown.iter().map(|path| format!("unknown field {:?}", path.to_string()))).collect()
}

/// What becomes of a request with such fields.
pub(crate) fn verdict(
    call: &Call,
    served: &Served,
    validation: FieldValidation,
    problems: Vec<String>,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let (kind, version) = (&served.resource.kind, &served.resource.version);
            let problems = problems.join(", ");
            Err(Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {problems}"
            )))
        }
        FieldValidation::Warn => {
            call.warn(problems);
            Ok(())
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kind_is_that_of_the_endpoint() {
        let read = |value: Value| {
            kind("apps/v1", "Deployment", Decoded { value, duplicates: Vec::new() }).map(|decoded| decoded.value)
        };
        let full = json!({"apiVersion": "apps/v1", "kind": "Deployment"});
        assert_eq!(read(json!({})).unwrap(), full);
        assert_eq!(read(full.clone()).unwrap(), full);
        for wrong in [json!({"kind": "Pod"}), json!({"apiVersion": "v1"})] {
            assert_eq!(read(wrong.clone()).unwrap_err().code, 400, "{wrong}");
        }
    }
}
