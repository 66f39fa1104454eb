//! JSON and YAML into values, telling which fields are given twice.
//!
//! `serde_json` keeps the last of two equal keys in silence; a manifest with a
//! key twice is nearly always a mistake, so `fieldValidation` wants them named.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Duplicates beyond this number are not collected: a message stays readable.
const MOST: usize = 20;

/// Reads a value from `source`, adding the paths of repeated keys to
/// `duplicates`.
///
/// # Errors
/// Those of the deserializer.
pub fn read<'de, D: Deserializer<'de>>(source: D, duplicates: &mut Vec<String>) -> Result<Value, D::Error> {
    Seed { path: &Step::Root, duplicates }.deserialize(source)
}

/// Where in the document we are; a list through the stack, so that nothing is
/// allocated unless a duplicate is found.
enum Step<'a> {
    Root,
    Field(&'a Step<'a>, &'a str),
    Item(&'a Step<'a>, usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => out.write_str(name),
            Self::Field(parent, name) => write!(out, "{parent}.{name}"),
            Self::Item(parent, index) => write!(out, "{parent}[{index}]"),
        }
    }
}

struct Seed<'a, 'd> {
    path: &'a Step<'a>,
    duplicates: &'d mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Step::Item(self.path, list.len());
            let Some(item) = items.next_element_seed(Seed { path: &path, duplicates: &mut *self.duplicates })? else {
                return Ok(Value::Array(list));
            };
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = Step::Field(self.path, &name);
            if map.contains_key(&name) && self.duplicates.len() < MOST {
                self.duplicates.push(path.to_string());
            }
            let value = fields.next_value_seed(Seed { path: &path, duplicates: &mut *self.duplicates })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_keys_are_named() {
        let text = r#"{"a":1,"b":{"c":[{"d":1,"d":2}],"c":3},"a":2.5}"#;
        let mut duplicates = Vec::new();
        let value = read(&mut serde_json::Deserializer::from_str(text), &mut duplicates).expect("JSON");
        assert_eq!(value, json!({"a": 2.5, "b": {"c": 3}}));
        assert_eq!(duplicates, ["b.c[0].d", "b.c", "a"]);
    }

    #[test]
    fn yaml_is_read_the_same_way() {
        let mut duplicates = Vec::new();
        let value =
            read(serde_yaml_ng::Deserializer::from_str("a: {x: ~}\nb: [1, 'two', true]\na: 3\n"), &mut duplicates)
                .expect("YAML");
        assert_eq!(value, json!({"a": 3, "b": [1, "two", true]}));
        assert_eq!(duplicates, ["a"]);
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            let read = read(&mut serde_json::Deserializer::from_str(&text), &mut Vec::new());
            assert!(read.is_err());
        }
        assert!(read(serde_yaml_ng::Deserializer::from_str(&"[".repeat(10_000)), &mut Vec::new()).is_err());
    }
}
