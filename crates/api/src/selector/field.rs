//! Field selectors (`status.phase=Running`); each kind has a short list of fields that may be asked.

use serde_json::{Value, json};

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

/// What selectors can ask of `object`, a stored object of `resource`, and nothing else
/// of it: selectors judge both alike.
pub fn outline(resource: &Resource, object: &Value) -> Value {
    let mut outline = json!({"metadata": {"labels": object["metadata"]["labels"]}});
    for label in COMMON.iter().chain(further(resource)) {
        let keys: Vec<&str> = path(label).split('.').collect();
        let value = keys.iter().fold(object, |value, key| &value[key]);
        if matches!(value, Value::String(_) | Value::Bool(_) | Value::Number(_)) {
            // What is not there yet becomes an object on the way.
            *keys.iter().fold(&mut outline, |place, key| &mut place[key]) = value.clone();
        }
    }
    outline
}

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
    COMMON.contains(&field) || further(resource).contains(&field)
}

/// Fields of a kind besides the common ones.
fn further(resource: &Resource) -> &'static [&'static str] {
    if resource.is_custom() {
        return &[];
    }
    let group = if resource.plural == "events" { "" } else { resource.group.as_str() };
    let found = FIELDS.iter().find(|(g, plural, _)| *g == group && *plural == resource.plural);
    found.map_or(&[], |(_, _, fields)| fields)
}

/// Where the field with a label is.
fn path(label: &str) -> &str {
    match label {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        label => label,
    }
}

/// The text of a field; what is missing is empty, or what it means when missing.
fn field(object: &Value, label: &str) -> String {
    let value = path(label).split('.').fold(object, |value, key| &value[key]);
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
            let selector = FieldSelector::parse(pods, text).expect(text);
            assert_eq!((selector.matches(&pod), selector.matches(&outline(pods, &pod))), (want, want), "{text}");
        }
        let one = FieldSelector::parse(pods, "metadata.name=a").expect("a selector");
        assert_eq!(one.name(), Some("a"));
    }

    #[test]
    fn an_outline_is_what_selectors_can_ask() {
        let event = json!({
            "metadata": {"name": "e", "labels": {"a": "b"}, "annotations": {"long": "text"}},
            "source": {"component": "c", "host": "h"},
            "involvedObject": {"name": "p"},
            "message": "long text",
        });
        let events = builtin().find("", "v1", "events").expect("a built-in");
        let want = json!({
            "metadata": {"name": "e", "labels": {"a": "b"}},
            "source": {"component": "c"},
            "involvedObject": {"name": "p"},
        });
        assert_eq!(outline(events, &event), want);
        // What is not as its kind has it selects like the object itself.
        for strange in [json!(7), json!({"metadata": "m", "source": "s"}), json!({"metadata": {"name": {}}})] {
            let selector = FieldSelector::parse(events, "metadata.name!=e,source!=x").expect("a selector");
            assert_eq!(selector.matches(&outline(events, &strange)), selector.matches(&strange), "{strange}");
        }
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
