//! Label selectors: reading, checking and matching.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Most requirements in one selector; keeps the cost of the checks in the definition bounded.
const MAX_REQUIREMENTS: usize = 64;
/// Most values in one requirement.
const MAX_VALUES: usize = 128;

/// Which labels an object must have. Empty: any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels with exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements; all must hold.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    #[schemars(schema_with = "requirements")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[schemars(schema_with = "operator")]
    pub operator: String,
    /// Values for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    #[schemars(schema_with = "values")]
    pub values: Vec<String>,
}

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// Path inside the selector.
    pub path: String,
    /// What is wrong there and what is allowed.
    pub problem: String,
}

impl std::fmt::Display for SelectorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for SelectorError {}

impl LabelSelector {
    /// A selector for one label with one value.
    pub fn label(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { match_labels: [(key.into(), value.into())].into(), match_expressions: Vec::new() }
    }

    /// A selector for one of some values of a label.
    pub fn one_of<V: Into<String>>(key: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        let requirement = Requirement { key: key.into(), operator: "In".into(), values };
        Self { match_labels: BTreeMap::new(), match_expressions: vec![requirement] }
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Every problem of this selector.
    pub fn problems(&self) -> Vec<SelectorError> {
        let problem = |path: String, problem: &str| SelectorError { path, problem: problem.into() };
        let mut found = Vec::new();
        for (key, value) in &self.match_labels {
            if !is_key(key) {
                found.push(problem(format!("matchLabels[{key:?}]"), "not a label key"));
            }
            if !is_value(value) {
                found.push(problem(format!("matchLabels[{key:?}]"), "not a label value"));
            }
        }
        for (at, requirement) in self.match_expressions.iter().enumerate() {
            found.extend(
                requirement.problems().into_iter().map(|(field, text)| SelectorError {
                    path: format!("matchExpressions[{at}].{field}"),
                    problem: text,
                }),
            );
        }
        found
    }

    /// Whether labels fulfil every requirement. A selector with [`problems`](Self::problems) matches nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !is_key(&self.key) {
            found.push(("key", format!("{:?} is not a label key", self.key)));
        }
        match self.operator.as_str() {
            "In" | "NotIn" if self.values.is_empty() => {
                found.push(("values", format!("{} needs at least one value", self.operator)));
            }
            "Exists" | "DoesNotExist" if !self.values.is_empty() => {
                found.push(("values", format!("{} takes no values", self.operator)));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                found.push(("operator", format!("{other:?} is not one of In, NotIn, Exists, DoesNotExist")));
            }
        }
        let bad = self.values.iter().filter(|value| !is_value(value));
        found.extend(bad.map(|value| ("values", format!("{value:?} is not a label value"))));
        found
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_domain) && !name.is_empty() && is_value(name)
}

fn is_domain(prefix: &str) -> bool {
    let part = |part: &str| {
        let inner = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
    };
    prefix.len() <= 253 && prefix.split('.').all(part)
}

fn is_value(value: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let inner = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    value.len() <= 63 && inner && ends(value.bytes().next()) && ends(value.bytes().next_back())
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}})
}

fn requirements(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<Requirement>();
    json_schema!({"type": "array", "maxItems": MAX_REQUIREMENTS, "items": item})
}

fn operator(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]})
}

fn values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": MAX_VALUES, "items": {"type": "string", "maxLength": 63}})
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_match_as_kubernetes_matches_them() {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("fast".to_owned(), String::new())]);
        for (selector, wanted) in [
            (json!({}), true),
            (json!({"matchLabels": null, "matchExpressions": null}), true),
            (json!({"matchLabels": {"zone": "a"}}), true),
            (json!({"matchLabels": {"zone": "b"}}), false),
            (json!({"matchLabels": {"fast": ""}}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b", "a"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), false),
            (json!({"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "fast", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "fast", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "fast", "operator": "Gt", "values": ["1"]}]}), false),
        ] {
            let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(read.matches(&labels), wanted, "{selector}");
        }
    }

    #[test]
    fn every_problem_is_named_with_its_path() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"good.example/key": "v", "-bad": "also bad"},
            "matchExpressions": [{"key": "a", "operator": "Near"}, {"key": "b", "operator": "In"},
                {"key": "Up/x", "operator": "Exists", "values": ["v"]}],
        }))
        .unwrap();
        let found: Vec<_> = selector.problems().into_iter().map(|problem| problem.to_string()).collect();
        assert_eq!(
            found,
            [
                "matchLabels[\"-bad\"]: not a label key",
                "matchLabels[\"-bad\"]: not a label value",
                "matchExpressions[0].operator: \"Near\" is not one of In, NotIn, Exists, DoesNotExist",
                "matchExpressions[1].values: In needs at least one value",
                "matchExpressions[2].key: \"Up/x\" is not a label key",
                "matchExpressions[2].values: Exists takes no values",
            ]
        );
    }
}
