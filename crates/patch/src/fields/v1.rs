//! FieldsV1, the JSON form of a set.

use osc_schema::MAX_DEPTH;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Element, Entry, Set};

/// Paths one object may list for all its managers together; far more than an object of legal size has fields.
pub const MAX_FIELDS: usize = 200_000;

/// Why something is not FieldsV1.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FieldsError {
    /// Every level is an object.
    #[error("fieldsV1: {path:?} must be an object")]
    NotAnObject {
        /// The last key on the way there.
        path: String,
    },
    /// A key that starts like a known one and goes on wrongly.
    #[error("fieldsV1: cannot read the key {key:?}")]
    BadKey {
        /// The key.
        key: String,
    },
    /// Nested too deep.
    #[error("fieldsV1: nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Too many keys.
    #[error("fieldsV1: more than {MAX_FIELDS} fields")]
    TooMany,
}

/// Reads FieldsV1. `budget` is the number of keys still allowed, and what is left of it afterwards.
///
/// Keys of a kind nobody knows are skipped, for they may come from a newer server; so are list positions (`i:0`),
/// which own nothing that lasts.
pub fn parse(fields: &Value, budget: &mut usize) -> Result<Set, FieldsError> {
    Ok(read("", fields, budget, 0)?.below)
}

fn read(key: &str, value: &Value, budget: &mut usize, depth: usize) -> Result<Entry, FieldsError> {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => return Ok(Entry::leaf()),
        _ => return Err(FieldsError::NotAnObject { path: key.to_owned() }),
    };
    if depth > MAX_DEPTH {
        return Err(FieldsError::TooDeep);
    }
    let mut entry = Entry { owned: fields.is_empty(), below: Set::default() };
    for (key, value) in fields {
        *budget = budget.checked_sub(1).ok_or(FieldsError::TooMany)?;
        if key == "." {
            entry.owned = true;
        } else if let Some(element) = Element::parse(key) {
            entry.below.add(element, read(key, value, budget, depth + 1)?);
        } else if ["f:", "k:", "v:"].iter().any(|prefix| key.starts_with(prefix)) {
            return Err(FieldsError::BadKey { key: key.clone() });
        }
    }
    Ok(entry)
}

/// Writes FieldsV1, sorted.
pub fn to_value(set: &Set) -> Value {
    Value::Object(write(set))
}

fn write(set: &Set) -> Map<String, Value> {
    set.iter()
        .map(|(element, entry)| {
            let mut below = Map::new();
            if entry.owned && !entry.below.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            below.extend(write(&entry.below));
            (element.to_text(), Value::Object(below))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(fields: &Value) -> Result<Set, FieldsError> {
        parse(fields, &mut MAX_FIELDS.clone())
    }

    #[test]
    fn fields_are_read() {
        for (fields, paths) in [
            (json!({}), &[][..]),
            (json!({"f:a": {}}), &[".a"]),
            (json!({"f:a": null}), &[".a"]),
            (json!({"f:a": {".": {}, "f:b": {}}}), &[".a", ".a.b"]),
            (json!({"f:a": {"f:b": {}}}), &[".a.b"]),
            (json!({"f:a": {"k:{\"name\":\"x\"}": {".": {}, "f:b": {}}}}), &[r#".a[name="x"]"#, r#".a[name="x"].b"#]),
            (json!({"f:a": {"v:\"x\"": {}}}), &[r#".a[="x"]"#]),
            (json!({"f:a": {"i:0": {}}, "z:future": {}}), &[]),
        ] {
            assert_eq!(parsed(&fields).unwrap().paths(), paths, "{fields}");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        let deep = |levels: usize| (0..levels).fold(json!({}), |below, _| json!({"f:a": below}));
        let wide: Value = (0..=MAX_FIELDS).map(|n| (format!("f:{n}"), json!({}))).collect::<Map<_, _>>().into();
        for (fields, want) in [
            (json!([]), FieldsError::NotAnObject { path: String::new() }),
            (json!({"f:a": 1}), FieldsError::NotAnObject { path: "f:a".to_owned() }),
            (json!({"k:name": {}}), FieldsError::BadKey { key: "k:name".to_owned() }),
            (deep(MAX_DEPTH + 2), FieldsError::TooDeep),
            (wide, FieldsError::TooMany),
        ] {
            assert_eq!(parsed(&fields), Err(want));
        }
    }

    #[test]
    fn a_parent_is_owned_by_a_dot() {
        let mut set = Set::of(&["a"]);
        set.union(Set::of(&["a", "b"]));
        assert_eq!(to_value(&set).to_string(), r#"{"f:a":{".":{},"f:b":{}}}"#);
        assert_eq!(to_value(&Set::of(&["a"])).to_string(), r#"{"f:a":{}}"#);
        assert_eq!(to_value(&Set::of(&["a", "b"])).to_string(), r#"{"f:a":{"f:b":{}}}"#);
    }

    fn element() -> impl Strategy<Value = Element> {
        prop_oneof![
            ".*".prop_map(|name| Element::field(&name)),
            ("[a-z]+", any::<i64>()).prop_map(|(name, n)| Element::key([(name.as_str(), &json!(n))])),
            ("[a-z]+", ".*").prop_map(|(name, text)| Element::key([(name.as_str(), &json!(text))])),
            any::<i32>().prop_map(|n| Element::value(&json!(f64::from(n) / 8.0))),
            ".*".prop_map(|text| Element::value(&json!(text))),
        ]
    }

    fn any_set() -> impl Strategy<Value = Set> {
        prop::collection::vec(prop::collection::vec(element(), 1..5), 0..20).prop_map(|paths| {
            let mut set = Set::default();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(set in any_set()) {
            let written = to_value(&set);
            prop_assert_eq!(parsed(&written).unwrap(), set);
            // Through text, as it travels.
            let text = written.to_string();
            prop_assert_eq!(to_value(&parsed(&serde_json::from_str(&text).unwrap()).unwrap()).to_string(), text);
        }

        #[test]
        fn sets_obey_their_laws(a in any_set(), b in any_set()) {
            let mut union = a.clone();
            union.union(b.clone());
            prop_assert!(a.is_subset(&union) && b.is_subset(&union));
            let mut rest = union.clone();
            rest.subtract(&b);
            prop_assert!(rest.is_subset(&a));
            prop_assert!(rest.intersection(&b).is_empty());
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            let mut none = a.clone();
            none.subtract(&a);
            prop_assert!(none.is_empty());
        }
    }
}
