//! Functions done here: those that work without copying, those whose cost the library does not bound, and optionals.

use std::sync::Arc;

use super::eval::{Evaluated, Run, failed, no_overload, type_value};
use super::value::{Value, as_optional, optional, text, type_name};
use super::{functions, library};

impl Run<'_> {
    /// Calls a function whose existence the check has seen to.
    pub(crate) fn function(&mut self, name: &str, receiver: Option<Value>, arguments: Vec<Value>) -> Evaluated {
        let all: Vec<&Value> = receiver.iter().chain(&arguments).collect();
        if !functions::overloads(name).iter().any(|overload| overload.accepts(receiver.as_ref(), &arguments)) {
            return no_overload(name, &all);
        }
        match (name, all.as_slice()) {
            ("size", [value]) => size(value),
            ("type", [value]) => Ok(type_value(type_name(value))),
            ("dyn", [value]) => Ok(Value::clone(value)),
            ("bool", [value]) => to_bool(value),
            ("string", [value @ (Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_))]) => {
                Ok(text(plain(value)))
            }
            ("contains" | "startsWith" | "endsWith", [Value::String(whole), Value::String(part)]) => {
                self.charge((whole.len() + part.len()) as u64 / 10)?;
                Ok(Value::Bool(match name {
                    "contains" => whole.contains(part.as_str()),
                    "startsWith" => whole.starts_with(part.as_str()),
                    _ => whole.ends_with(part.as_str()),
                }))
            }
            ("matches" | "find" | "findAll", [Value::String(whole), Value::String(pattern), rest @ ..]) => {
                self.regex_function(name, whole, pattern, rest)
            }
            ("replace", [Value::String(whole), Value::String(from), Value::String(to), rest @ ..]) => {
                self.replace(whole, from, to, rest)
            }
            ("join", [Value::List(items), rest @ ..]) => self.join(items, rest),
            ("optional.none", []) => Ok(optional(None)),
            ("optional.of", [value]) => Ok(optional(Some(Value::clone(value)))),
            ("optional.ofNonZeroValue", [value]) => Ok(optional((!is_zero(value)).then(|| Value::clone(value)))),
            ("hasValue" | "value" | "or" | "orValue", [value, rest @ ..]) => match as_optional(value) {
                Some(held) => optional_function(name, value, held, rest),
                None => no_overload(name, &all),
            },
            _ => self.library_function(name, receiver, arguments),
        }
    }

    fn regex_function(&mut self, name: &str, whole: &str, pattern: &str, rest: &[&Value]) -> Evaluated {
        let regex = self.pattern(pattern)?;
        // Matching takes time linear in both.
        self.charge((1 + whole.len() as u64 / 10) * (1 + pattern.len() as u64 / 4))?;
        match (name, rest) {
            ("matches", []) => Ok(Value::Bool(regex.is_match(whole))),
            ("find", []) => Ok(text(regex.find(whole).map_or("", |found| found.as_str()))),
            ("findAll", []) => Ok(found_all(&regex, whole, usize::MAX)),
            ("findAll", [Value::Int(limit)]) => {
                Ok(found_all(&regex, whole, usize::try_from(*limit).unwrap_or(usize::MAX)))
            }
            _ => failed(format!("no such overload: {name}")),
        }
    }

    fn replace(&mut self, whole: &str, from: &str, to: &str, rest: &[&Value]) -> Evaluated {
        let limit = match rest {
            [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let times = whole.matches(from).count().min(limit);
        self.charge((whole.len() as u64).saturating_add(times as u64 * (1 + to.len() as u64)) / 10)?;
        Ok(text(whole.replacen(from, to, times)))
    }

    fn join(&mut self, items: &[Value], rest: &[&Value]) -> Evaluated {
        let separator = match rest {
            [Value::String(separator)] => separator.as_str(),
            _ => "",
        };
        let mut joined = String::new();
        for (index, item) in items.iter().enumerate() {
            let Value::String(item) = item else { return no_overload("join", &[item]) };
            self.charge(1 + (item.len() + separator.len()) as u64 / 10)?;
            joined.push_str(if index == 0 { "" } else { separator });
            joined.push_str(item);
        }
        Ok(text(joined))
    }

    /// A function of `kube-cel`: it copies what it is given.
    fn library_function(&mut self, name: &str, receiver: Option<Value>, arguments: Vec<Value>) -> Evaluated {
        for value in receiver.iter().chain(&arguments) {
            self.charge_all(value)?;
        }
        let length = |value: Option<&Value>| match value {
            Some(Value::List(items)) => items.len() as u64,
            _ => 1,
        };
        match (name, arguments.as_slice()) {
            // These compare every item with every other.
            ("distinct", _) => self.charge(length(receiver.as_ref()).saturating_pow(2))?,
            ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
                self.charge(length(Some(a)).saturating_mul(length(Some(b))))?;
            }
            ("lists.range", [Value::Int(count)]) => match u64::try_from(*count) {
                Ok(count) => self.charge(count)?,
                Err(_) => return failed("lists.range: count must not be negative"),
            },
            _ => {}
        }
        let result = library::call(receiver, name, arguments);
        if name == "format.named" {
            // A name nobody knows is no failure.
            return Ok(optional(result.ok()));
        }
        let result = result.or_else(failed)?;
        self.charge_all(&result)?;
        Ok(result)
    }
}

fn size(value: &Value) -> Evaluated {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        other => return no_overload("size", &[other]),
    };
    Ok(Value::Int(size as i64))
}

fn to_bool(value: &Value) -> Evaluated {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => failed("type conversion error from 'string' to 'bool'"),
        },
        other => no_overload("bool", &[other]),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => String::new(),
    }
}

fn found_all(regex: &regex::Regex, whole: &str, limit: usize) -> Value {
    Value::List(Arc::new(regex.find_iter(whole).take(limit).map(|found| text(found.as_str())).collect()))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::UInt(0) => true,
        Value::Float(number) => *number == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.map.is_empty(),
        _ => false,
    }
}

fn optional_function(name: &str, whole: &Value, held: Option<&Value>, rest: &[&Value]) -> Evaluated {
    match (name, held, rest) {
        ("hasValue", held, []) => Ok(Value::Bool(held.is_some())),
        ("value", Some(held), []) => Ok(held.clone()),
        ("value", None, []) => failed("optional.none() dereference"),
        ("or", Some(_), [_]) => Ok(whole.clone()),
        ("orValue", Some(held), [_]) => Ok(held.clone()),
        ("or" | "orValue", None, [other]) => Ok(Value::clone(other)),
        _ => no_overload(name, &[whole]),
    }
}
