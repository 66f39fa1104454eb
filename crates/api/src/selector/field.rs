//! Field selectors (`status.phase=Running`); each kind has a short list of fields that may be asked.

use serde_json::Value;

use crate::{Resource, Status, status::quote};

/// Most requirements one selector may have.
const MAX_REQUIREMENTS: usize = 128;

/// Fields every kind can be selected by.
const COMMON: &[&str] = &["metadata.name", "metadata.namespace"];

/// Further fields: group, plural, field labels.
const FIELDS: &[(&str, &str, &[&str])] = &[
    (
        "",
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "",
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("", "nodes", &["spec.unschedulable"]),
    ("", "secrets", &["type"]),
    ("", "namespaces", &["status.phase"]),
    ("", "replicationcontrollers", &["status.replicas"]),
    ("", "services", &["spec.clusterIP", "spec.type"]),
    ("apps", "replicasets", &["status.replicas"]),
    ("batch", "jobs", &["status.successful"]),
];

/// All of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads the text of a `fieldSelector` parameter for objects of `resource`.
    ///
    /// Objects of `events.k8s.io` are selected in their stored form, as core events.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for part in split(text) {
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(Status::bad_request("too many field selector requirements"));
            }
            let requirement = requirement(&part).ok_or_else(|| {
                Status::bad_request(format!("invalid selector: {}; can't understand {}", quote(text), quote(&part)))
            })?;
            if !known(resource, &requirement.field) {
                return Err(Status::bad_request(format!("field label not supported: {}", requirement.field)));
            }
            requirements.push(requirement);
        }
        Ok(Self { requirements })
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The name an object must have, when the selector asks for one.
    pub fn name(&self) -> Option<&str> {
        let by_name = |requirement: &&Requirement| requirement.equal && requirement.field == "metadata.name";
        self.requirements.iter().find(by_name).map(|requirement| requirement.value.as_str())
    }

    /// Whether `object`, in its stored form, is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements
            .iter()
            .all(|requirement| (field(object, &requirement.field) == requirement.value) == requirement.equal)
    }
}

fn known(resource: &Resource, field: &str) -> bool {
    let group = if resource.plural == "events" { "" } else { resource.group.as_str() };
    let further = FIELDS.iter().find(|(g, plural, _)| *g == group && *plural == resource.plural);
    COMMON.contains(&field) || (!resource.is_custom() && further.is_some_and(|(_, _, fields)| fields.contains(&field)))
}

/// The text of a field; what is missing is empty, or what it means when missing.
fn field(object: &Value, label: &str) -> String {
    let path = match label {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        label => label,
    };
    let value = path.split('.').fold(object, |value, key| &value[key]);
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => match label {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
    }
}

/// The parts between commas that are not escaped.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, parts.last_mut()) {
            (',', _) => parts.push(String::new()),
            ('\\', Some(part)) => {
                part.push('\\');
                part.extend(characters.next());
            }
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((field, value)) = part.split_once(sign) {
            return Some(Requirement { field: field.trim().to_owned(), value: unescape(value)?, equal });
        }
    }
    None
}

/// `\\`, `\,` and `\=` stand for the character itself; anything else escaped, or a bare `=`, is wrong.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.push(characters.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    #[test]
    fn fields_select_objects() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"nodeName": "n,1"},
            "status": {"phase": "Running"},
        });
        let pods = builtin().find("", "v1", "pods").expect("a built-in");
        let rows = [
            ("", true),
            ("metadata.name=a,metadata.namespace=b", true),
            ("status.phase!=Running", false),
            ("status.phase==Running", true),
            ("spec.nodeName=n\\,1", true),
            ("spec.nodeName!=", true),
            ("spec.hostNetwork=false", true),
        ];
        for (text, want) in rows {
            assert_eq!(FieldSelector::parse(pods, text).map(|selector| selector.matches(&pod)), Ok(want), "{text}");
        }
        let one = FieldSelector::parse(pods, "metadata.name=a").expect("a selector");
        assert_eq!(one.name(), Some("a"));
    }

    #[test]
    fn other_fields_are_refused() {
        let pods = builtin().find("", "v1", "pods").expect("a built-in");
        let error = FieldSelector::parse(pods, "spec.x=1").expect_err("an unknown field");
        assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: spec.x"));
        for text in ["status.phase", "status.phase=a=b", "status.phase=\\x"] {
            assert_eq!(FieldSelector::parse(pods, text).expect_err(text).code, 400);
        }
    }
}
