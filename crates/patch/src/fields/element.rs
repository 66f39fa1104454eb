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

    /// The item whose key fields have these values.
    pub fn key<'a>(keys: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut text = String::new();
        write_object(keys.into_iter().collect(), &mut text);
        Self::Key(text)
    }

    /// The item that is `value`.
    pub fn value(value: &Value) -> Self {
        let mut text = String::new();
        write(value, &mut text);
        Self::Value(text)
    }

    /// Reads `f:name`, `k:{…}` or `v:…`; none for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once(':')?;
        match prefix {
            "f" => Some(Self::field(rest)),
            "k" => match serde_json::from_str(rest).ok()? {
                Value::Object(keys) => Some(Self::key(keys.iter().map(|(name, value)| (name.as_str(), value)))),
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

/// Writes JSON with sorted keys, and with numbers that are whole written as such: 1.0 and 1 name the same item.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => match number.as_f64() {
            // 2^53: beyond, floating point skips whole numbers.
            Some(n) if number.is_f64() && n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => {
                text.push_str(&(n as i64).to_string());
            }
            _ => text.push_str(&number.to_string()),
        },
        Value::String(string) => write_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            write_object(fields.iter().map(|(name, field)| (name.as_str(), field)).collect(), text)
        }
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
    }
}

fn write_object(mut fields: Vec<(&str, &Value)>, text: &mut String) {
    fields.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (index, (name, field)) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(name, text);
        text.push(':');
        write(field, text);
    }
    text.push('}');
}

fn write_string(string: &str, text: &mut String) {
    // Most names and keys need no escapes, and there are many.
    if string.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.push('"');
        text.push_str(string);
        text.push('"');
    } else {
        text.push_str(&Value::from(string).to_string());
    }
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
    fn texts_are_json() {
        for value in [
            serde_json::json!({"b": [1, -2.5, null, true], "a": {"y": "x", "": {}}, "c": []}),
            serde_json::json!("quote \" slash \\ line \n bell \u{7} del \u{7f} \u{2028} é"),
            serde_json::json!([u64::MAX, i64::MIN, 1e300, "\u{0}"]),
        ] {
            let Element::Value(text) = Element::value(&value) else { panic!("not a value") };
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            assert_eq!(Element::parse(&format!("v:{text}")), Some(Element::value(&value)));
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
