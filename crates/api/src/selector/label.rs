//! Label selectors, as query text (`a=b,c in (d,e),!f`) and as the object in specs.

use serde_json::{Map, Value};

use crate::{
    status::quote,
    validate::names,
    value::{array, entries, text},
};

/// Most requirements one selector may have.
const MAX_REQUIREMENTS: usize = 1024;

/// All of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// Why a selector cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct SelectorError(String);

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Reads the text of a `labelSelector` parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split(text)? {
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(SelectorError("too many requirements".to_owned()));
            }
            requirements.push(requirement(part.trim())?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a LabelSelector object; nothing at all selects nothing, an empty one everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = equals(entries(selector, "matchLabels"));
        for expression in array(selector, "matchExpressions") {
            let values: Vec<String> =
                array(expression, "values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match (text(expression, "operator"), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::Absent,
                ("Gt", false) => Operator::Greater(bound(values.first())?),
                ("Lt", false) => Operator::Less(bound(values.first())?),
                (operator, _) => {
                    return Err(SelectorError(format!("{} is not a valid label selector operator", quote(operator))));
                }
            };
            requirements.push(Requirement { key: text(expression, "key").to_owned(), operator });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Selects objects that have all of these labels (a Service's selector).
    pub fn from_labels(labels: &Map<String, Value>) -> Self {
        Self { requirements: equals(labels.iter()), nothing: false }
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.holds(labels))
    }

    /// Whether an object is selected by its `metadata.labels`.
    pub fn matches_object(&self, object: &Value) -> bool {
        match object["metadata"]["labels"].as_object() {
            Some(labels) => self.matches(labels),
            None => self.matches(&Map::new()),
        }
    }
}

impl std::fmt::Display for LabelSelector {
    /// The query text, as the `scale` subresource and tables show it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{comma}{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{comma}{key} in ({})", values.join(","))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{comma}{key}!={}", values[0])?,
                Operator::NotIn(values) => write!(f, "{comma}{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::Absent => write!(f, "{comma}!{key}")?,
                Operator::Greater(bound) => write!(f, "{comma}{key}>{bound}")?,
                Operator::Less(bound) => write!(f, "{comma}{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

impl Requirement {
    fn holds(&self, labels: &Map<String, Value>) -> bool {
        let label = labels.get(&self.key).and_then(Value::as_str);
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            Operator::NotIn(values) => label.is_none_or(|label| values.iter().all(|value| value != label)),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Greater(bound) => number().is_some_and(|number| number > *bound),
            Operator::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn equals<'a>(labels: impl Iterator<Item = (&'a String, &'a Value)>) -> Vec<Requirement> {
    labels
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.as_str().unwrap_or_default().to_owned()]),
        })
        .collect()
}

/// The parts between commas that stand outside parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if inside => return Err(SelectorError("found '(', expected: ',', ')' or identifier".to_owned())),
            '(' => inside = true,
            ')' if !inside => return Err(SelectorError("found ')', expected: ',' or end of string".to_owned())),
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(SelectorError("found '', expected: ',' or ')'".to_owned()));
    }
    let last = &text[start..];
    if !last.trim().is_empty() || !parts.is_empty() {
        parts.push(last);
    }
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    if let Some(name) = part.strip_prefix('!') {
        return Ok(Requirement { key: key(name)?, operator: Operator::Absent });
    }
    for (sign, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, wanted)) = part.split_once(sign) {
            let values = vec![value(wanted)?];
            let operator = if negated { Operator::NotIn(values) } else { Operator::In(values) };
            return Ok(Requirement { key: key(name)?, operator });
        }
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((name, wanted)) = part.split_once(sign) {
            let bound = bound(Some(&wanted.trim().to_owned()))?;
            let operator = if greater { Operator::Greater(bound) } else { Operator::Less(bound) };
            return Ok(Requirement { key: key(name)?, operator });
        }
    }
    let Some((head, list)) = part.split_once('(') else {
        return Ok(Requirement { key: key(part)?, operator: Operator::Exists });
    };
    let values = list
        .trim_end()
        .strip_suffix(')')
        .ok_or_else(|| SelectorError(format!("found {}, expected: ',' or end of string", quote(list))))?;
    let values = values.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
    let mut words = head.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(name), Some("in"), None) => Ok(Requirement { key: key(name)?, operator: Operator::In(values) }),
        (Some(name), Some("notin"), None) => Ok(Requirement { key: key(name)?, operator: Operator::NotIn(values) }),
        _ => Err(SelectorError(format!("found {}, expected: in, notin, =, ==, !=, gt, lt", quote(head.trim())))),
    }
}

fn bound(value: Option<&String>) -> Result<i64, SelectorError> {
    let value = value.map(String::as_str).unwrap_or_default();
    value.parse().map_err(|_| SelectorError(format!("{} is no integer", quote(value))))
}

fn key(name: &str) -> Result<String, SelectorError> {
    let name = name.trim();
    match names::qualified_name(name).into_iter().next() {
        None => Ok(name.to_owned()),
        Some(why) => Err(SelectorError(format!("<nil>: Invalid value: {}: {why}", quote(name)))),
    }
}

fn value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    match names::label_value(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(why) => Err(SelectorError(format!("<nil>: Invalid value: {}: {why}", quote(text)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_selects_by_every_operator() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        let rows = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app notin (web,db)", false),
            ("other notin (web)", true),
            ("app", true),
            ("other", false),
            ("!other", true),
            ("!app", false),
            ("n>4", true),
            ("n<5", false),
            ("app in (web),!other,tier!=back", true),
            ("app=", false),
        ];
        for (text, want) in rows {
            let selector = LabelSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches(labels.as_object().unwrap()), want, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["app in web", "app in (web", "a b", "=x", "app in (a))", "a=b,", "-a=b", "a=b c", "in (a)", "a>x"]
        {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn objects_select_like_text() {
        let selector = json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d", "e"]}, {"key": "f", "operator": "Exists"}],
        });
        let selector = LabelSelector::from_object(&selector).unwrap();
        assert_eq!(selector.to_string(), "a=b,c notin (d,e),f");
        let object = json!({"metadata": {"labels": {"a": "b", "f": ""}}});
        assert!(selector.matches_object(&object) && !selector.matches_object(&json!({})));
        assert!(LabelSelector::from_object(&json!({})).unwrap().matches_object(&json!({})));
        assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches_object(&json!({})));
        assert!(LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z!=<>(), \u{e9}]{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
