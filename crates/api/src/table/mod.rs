//! What `kubectl get` prints: objects as rows of a `Table`.
//!
//! A [`Printer`] knows the columns of one resource: built-in ones from the tables in this folder,
//! custom ones from their `additionalPrinterColumns`.

mod age;
mod builtin;
mod custom;
mod network;
mod pod;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Resource,
    value::{array, entries, integer, text},
};

pub use age::human_duration;
use custom::CustomColumn;

/// What of an object goes along with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// Turns objects of one resource into rows.
#[derive(Clone, Debug)]
pub struct Printer(Columns);

#[derive(Clone, Debug)]
enum Columns {
    Builtin(&'static [Column]),
    Custom(Vec<CustomColumn>),
}

/// A column of a built-in resource.
#[derive(Debug)]
struct Column {
    name: &'static str,
    wide: bool,
    cell: Cell,
}

/// Where the cells of a column come from.
#[derive(Clone, Copy, Debug)]
enum Cell {
    /// The name of the object.
    Name,
    /// Time since creation.
    Age,
    /// Time of creation.
    Created,
    /// The text at a JSON pointer, empty when missing.
    Text(&'static str),
    /// As `Text`, `<none>` when missing.
    TextOrNone(&'static str),
    /// The number at a JSON pointer, 0 when missing.
    Number(&'static str),
    /// A text made of the whole object.
    Made(fn(&Value, Timestamp) -> String),
    /// A number made of the whole object.
    Counted(fn(&Value) -> i64),
}

const fn column(name: &'static str, cell: Cell) -> Column {
    Column { name, wide: false, cell }
}

const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, wide: true, cell }
}

const NAME: Column = column("Name", Cell::Name);
const AGE: Column = column("Age", Cell::Age);

impl Printer {
    /// The columns of a built-in resource; name and age where nothing better is known.
    pub fn builtin(resource: &Resource) -> Self {
        Self(Columns::Builtin(builtin::columns(&resource.group, &resource.plural)))
    }

    /// The columns a CustomResourceDefinition declares for `version`.
    pub fn custom(crd: &Value, version: &str) -> Self {
        Self(Columns::Custom(custom::columns(crd, version)))
    }

    /// `columnDefinitions` of a table.
    pub fn column_definitions(&self) -> Value {
        match &self.0 {
            Columns::Builtin(columns) => columns.iter().map(Column::definition).collect(),
            Columns::Custom(columns) => columns.iter().map(CustomColumn::definition).collect(),
        }
    }

    /// The row of one object.
    pub fn row(&self, object: &Value, include: Include, now: Timestamp) -> Value {
        let cells: Vec<Value> = match &self.0 {
            Columns::Builtin(columns) => columns.iter().map(|column| column.cell(object, now)).collect(),
            Columns::Custom(columns) => columns.iter().map(|column| column.cell(object, now)).collect(),
        };
        match include {
            Include::None => json!({"cells": cells}),
            Include::Metadata => json!({"cells": cells, "object": partial(object)}),
            Include::Object => json!({"cells": cells, "object": object}),
        }
    }

    /// A whole `Table`, `version` being `v1` or `v1beta1`.
    ///
    /// `metadata` is that of the list or, for a single object, its resourceVersion. The columns may
    /// be left out of all events of a watch but the first.
    pub fn table(&self, version: &str, metadata: Value, rows: Vec<Value>, with_columns: bool) -> Value {
        let columns = if with_columns { self.column_definitions() } else { Value::Array(Vec::new()) };
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }
}

/// An object as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

impl Column {
    fn definition(&self) -> Value {
        let kind = match self.cell {
            Cell::Number(_) | Cell::Counted(_) => "integer",
            _ => "string",
        };
        let format = match self.cell {
            Cell::Name => "name",
            Cell::Created => "date",
            _ => "",
        };
        definition(self.name, kind, format, "", i64::from(self.wide))
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match self.cell {
            Cell::Name => text(&object["metadata"], "name").into(),
            Cell::Age => age::since(&object["metadata"]["creationTimestamp"], now).into(),
            Cell::Created => text(&object["metadata"], "creationTimestamp").into(),
            Cell::Text(pointer) => shown(object, pointer).into(),
            Cell::TextOrNone(pointer) => or_none(shown(object, pointer)).into(),
            Cell::Number(pointer) => object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0).into(),
            Cell::Made(made) => made(object, now).into(),
            Cell::Counted(counted) => counted(object).into(),
        }
    }
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// The text of what is at `pointer`.
fn shown(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `a=b,c=d`, or `<none>`.
fn labels(holder: &Value, key: &str) -> String {
    let pairs: Vec<String> =
        entries(holder, key).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(pairs.join(","))
}

/// The strings of a list joined by commas.
fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// How many entries the list or map at `key` has.
fn size(holder: &Value, key: &str) -> i64 {
    let size = match holder.get(key) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    };
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The number at `key`, 0 when missing.
fn number(holder: &Value, key: &str) -> i64 {
    integer(holder, key).unwrap_or(0)
}

/// The first `count` texts, and how many more there are.
fn first_of(texts: &[String], count: usize) -> String {
    let shown = texts.iter().take(count).cloned().collect::<Vec<_>>().join(",");
    match texts.len().checked_sub(count) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        _ => or_none(shown),
    }
}

/// The status of the condition `kind`.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    array(&object["status"], "conditions").iter().find(|condition| text(condition, "type") == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells of a built-in object in one line.
    pub(super) fn row(group: &str, plural: &str, object: Value) -> String {
        cells(group, plural, &object).into_iter().map(|(_, cell)| cell).collect::<Vec<_>>().join("|")
    }

    /// Cells of a built-in object, by column name.
    pub(super) fn cells(group: &str, plural: &str, object: &Value) -> Vec<(String, String)> {
        let resource = crate::builtin().iter().find(|resource| resource.is(group, plural)).expect("a built-in");
        let printer = Printer::builtin(resource);
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let row = printer.row(object, Include::None, now);
        let names = printer.column_definitions();
        let cells = array(&row, "cells").iter().map(|cell| match cell {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        array(&Value::Object([("names".to_owned(), names)].into_iter().collect()), "names")
            .iter()
            .map(|column| text(column, "name").to_owned())
            .zip(cells)
            .collect()
    }

    #[test]
    fn every_builtin_prints_any_object() {
        for resource in crate::builtin().iter() {
            for object in [
                json!({}),
                json!({"spec": 3, "status": [], "metadata": "x"}),
                json!({"spec": {"ports": [1]}, "subsets": [1], "webhooks": 3}),
            ] {
                let cells = cells(&resource.group, &resource.plural, &object);
                assert!(cells.len() >= 2, "{}", resource.qualified());
            }
        }
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let resource = crate::builtin().find("node.k8s.io", "v1", "runtimeclasses").expect("a built-in");
        let printer = Printer::builtin(resource);
        let object = json!({"kind": "RuntimeClass", "metadata": {"name": "kata", "creationTimestamp": "2026-01-01T00:59:00Z"}, "handler": "kata"});
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let row = printer.row(&object, Include::Metadata, now);
        assert_eq!(row["cells"], json!(["kata", "kata", "60s"]));
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(printer.row(&object, Include::Object, now)["object"], object);
        let table = printer.table("v1", json!({"resourceVersion": "3"}), vec![row], true);
        assert_eq!(
            table["columnDefinitions"][0],
            json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})
        );
        assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    }
}
