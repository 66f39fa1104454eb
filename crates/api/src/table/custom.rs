//! Columns of custom resources (`additionalPrinterColumns`).

use jiff::Timestamp;
use osc_schema::JsonPath;
use serde_json::Value;

use super::{age, definition};
use crate::value::{array, integer, text};

/// A column a CustomResourceDefinition declares.
#[derive(Clone, Debug)]
pub(super) struct CustomColumn {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    /// Nothing when the path cannot be read: the cells stay empty.
    path: Option<JsonPath>,
}

/// The columns declared for `version`: the name first, the age if nothing is declared.
pub(super) fn columns(crd: &Value, version: &str) -> Vec<CustomColumn> {
    let versions = array(&crd["spec"], "versions");
    let declared = versions.iter().find(|each| text(each, "name") == version);
    let declared = declared.map(|version| array(version, "additionalPrinterColumns")).unwrap_or_default();
    let mut columns = vec![CustomColumn::fixed("Name", "string", "name", ".metadata.name")];
    columns.extend(declared.iter().map(|column| CustomColumn {
        name: text(column, "name").to_owned(),
        kind: text(column, "type").to_owned(),
        format: text(column, "format").to_owned(),
        description: text(column, "description").to_owned(),
        priority: integer(column, "priority").unwrap_or(0),
        path: JsonPath::parse(text(column, "jsonPath")).ok(),
    }));
    if columns.len() == 1 {
        columns.push(CustomColumn::fixed("Age", "date", "", ".metadata.creationTimestamp"));
    }
    columns
}

impl CustomColumn {
    fn fixed(name: &str, kind: &str, format: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority: 0,
            path: JsonPath::parse(path).ok(),
        }
    }

    pub(super) fn definition(&self) -> Value {
        definition(&self.name, &self.kind, &self.format, &self.description, self.priority)
    }

    /// The cell for `object`; null when there is nothing of the declared type.
    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.as_ref().and_then(|path| path.first(object)) else { return Value::Null };
        match (self.kind.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("integer", Value::Number(number)) => whole(number),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("date", time) => age::since(time, now).into(),
            ("string", Value::String(text)) => text.clone().into(),
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}

/// A number without what is behind its point.
fn whole(number: &serde_json::Number) -> Value {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            format!("{:.0}", float.trunc()).parse::<i64>().map_or(Value::Null, Value::from)
        }
        _ => number.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn declared_columns_are_shown() {
        let crd = json!({"spec": {"versions": [{"name": "v1", "additionalPrinterColumns": [
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
            {"name": "Note", "type": "string", "jsonPath": ".metadata.annotations.a\\.b/note"},
            {"name": "Since", "type": "date", "jsonPath": ".status.since"},
            {"name": "Tags", "type": "string", "jsonPath": ".spec.tags"},
            {"name": "None", "type": "boolean", "jsonPath": ".spec.size"},
        ]}]}});
        let object = json!({
            "metadata": {"name": "x", "annotations": {"a.b/note": "n"}},
            "spec": {"size": 3, "tags": ["a"]},
            "status": {"conditions": [{"type": "Other"}, {"type": "Ready", "status": "True"}], "since": "2026-01-01T00:00:00Z"},
        });
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let columns = columns(&crd, "v1");
        let cells: Vec<Value> = columns.iter().map(|column| column.cell(&object, now)).collect();
        assert_eq!(Value::from(cells), json!(["x", "True", 3, "n", "60m", "[\"a\"]", null]));
        assert_eq!(columns[2].definition()["priority"], 1);
    }

    #[test]
    fn nothing_declared_shows_the_age() {
        let names: Vec<String> = columns(&json!({}), "v1").into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["Name", "Age"]);
    }
}
