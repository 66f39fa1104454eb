//! One step of a path.

use std::fmt;

use serde_json::{Map, Value};

/// One step of a path. Keys and values are kept as canonical JSON, so that equal ones are equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A field of an object.
    Field(String),
    /// The item of a list whose key fields have these values: a JSON object.
    Key(String),
    /// The item of a set with this value: any JSON.
    Value(String),
}

impl Element {
    /// The field called `name`.
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// The item whose key fields have the values in `keys`.
    pub fn key(keys: Map<String, Value>) -> Self {
        Self::Key(canonical(&Value::Object(keys)))
    }

    /// The item that is `value`.
    pub fn value(value: &Value) -> Self {
        Self::Value(canonical(value))
    }

    /// Reads `f:name`, `k:{…}` or `v:…`; none for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once(':')?;
        match prefix {
            "f" => Some(Self::field(rest)),
            "k" => match serde_json::from_str(rest).ok()? {
                Value::Object(keys) => Some(Self::key(keys)),
                _ => None,
            },
            "v" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            _ => None,
        }
    }

    /// As in FieldsV1.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
        }
    }
}

/// As in messages: `.name`, `[name="a",port=80]`, `[="a"]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
        }
    }
}

/// JSON with sorted keys, and with numbers that are whole written as such: 1.0 and 1 name the same item.
fn canonical(value: &Value) -> String {
    fn normal(value: &Value) -> Value {
        match value {
            Value::Number(number) => match number.as_f64() {
                // 2^53: beyond, floating point skips whole numbers.
                Some(n) if number.is_f64() && n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => {
                    Value::from(n as i64)
                }
                _ => value.clone(),
            },
            Value::Array(items) => items.iter().map(normal).collect(),
            Value::Object(fields) => {
                let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| *name);
                sorted.into_iter().map(|(name, field)| (name.clone(), normal(field))).collect()
            }
            _ => value.clone(),
        }
    }
    normal(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_and_written() {
        for (text, shown) in [
            ("f:name", Some(".name")),
            ("f:a:b", Some(".a:b")),
            ("f:", Some(".")),
            (r#"k:{"name":"a"}"#, Some(r#"[name="a"]"#)),
            (r#"k:{"containerPort":80,"protocol":"TCP"}"#, Some(r#"[containerPort=80,protocol="TCP"]"#)),
            (r#"v:"x""#, Some(r#"[="x"]"#)),
            ("v:1", Some("[=1]")),
            ("v:", None),
            ("k:3", None),
            ("i:0", None),
            (".", None),
            ("", None),
        ] {
            let element = Element::parse(text);
            assert_eq!(element.as_ref().map(ToString::to_string).as_deref(), shown, "{text}");
            if let Some(element) = element {
                assert_eq!(element.to_text(), text);
            }
        }
    }

    #[test]
    fn order_and_form_of_numbers_do_not_matter() {
        for (left, right) in [
            (r#"k:{"a":1,"b":2}"#, r#"k:{"b":2.0,"a":1}"#),
            ("v:1", "v:1.0"),
            (r#"v:{"x":1,"y":[2]}"#, r#"v:{ "y": [2], "x": 1 }"#),
        ] {
            assert_eq!(Element::parse(left), Element::parse(right));
        }
        assert_ne!(Element::parse("v:1"), Element::parse(r#"v:"1""#));
    }
}
