//! Reading single keywords of a JSON schema: each has one type, and one of another type is reported, not ignored.

use serde_json::{Map, Number, Value};

use crate::cause::Cause;
use crate::path::Path;

/// Keywords of one schema, and where complaints about them go.
pub(crate) struct Keywords<'a, 'c> {
    pub(crate) map: &'a Map<String, Value>,
    pub(crate) path: &'c Path<'c>,
    pub(crate) causes: &'c mut Vec<Cause>,
}

impl<'a> Keywords<'a, '_> {
    /// The keyword, unless absent or null, converted; complains if it cannot be.
    fn read<T>(&mut self, name: &str, what: &str, convert: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        let converted = convert(value);
        if converted.is_none() {
            self.causes.push(Cause::type_invalid(self.path.field(name), value, &format!("must be {what}")));
        }
        converted
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<&'a str> {
        self.read(name, "a string", Value::as_str)
    }

    pub(crate) fn owned_text(&mut self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.read(name, "a boolean", Value::as_bool).unwrap_or(false)
    }

    /// A flag whose absence means something else than false.
    pub(crate) fn set_flag(&mut self, name: &str) -> Option<bool> {
        self.read(name, "a boolean", Value::as_bool)
    }

    pub(crate) fn count(&mut self, name: &str) -> Option<u64> {
        self.read(name, "a non-negative integer", Value::as_u64)
    }

    pub(crate) fn number(&mut self, name: &str) -> Option<Number> {
        self.read(name, "a number", |value| value.as_number().cloned())
    }

    pub(crate) fn list(&mut self, name: &str) -> &'a [Value] {
        self.read(name, "an array", Value::as_array).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn texts(&mut self, name: &str) -> Vec<String> {
        let strings = |value: &Value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        self.read(name, "an array of strings", strings).unwrap_or_default()
    }

    pub(crate) fn object(&mut self, name: &str) -> Option<&'a Map<String, Value>> {
        self.read(name, "an object", Value::as_object)
    }
}
