//! One operation of a JSON patch.
//!
//! Kubernetes is more lenient than the RFC, and clients count on it: `replace` puts a field that is not there, `add`
//! without a value puts `null`, `test` for `null` holds where nothing is.

use serde_json::{Map, Value};

use super::{
    error::{OperationCause, OperationError},
    place::{Place, find},
};

/// An operation as the client sent it.
pub struct Operation<'a>(pub &'a Map<String, Value>);

impl<'a> Operation<'a> {
    /// What is to be done; `unknown` where nothing is said.
    pub fn kind(&self) -> &'a str {
        self.0.get("op").and_then(Value::as_str).unwrap_or("unknown")
    }

    /// The value it brings, if it brings one.
    pub fn value(&self) -> Option<&'a Value> {
        self.0.get("value")
    }

    /// How deep in the object it does something.
    pub fn level(&self) -> usize {
        self.0.get("path").and_then(Value::as_str).map_or(0, |path| path.matches('/').count())
    }

    /// Where `copy` takes its value from; nothing where that is not there.
    pub fn copied<'b>(&self, object: &'b mut Value) -> Option<Place<'b>> {
        let from = self.0.get("from").and_then(Value::as_str).filter(|_| self.kind() == "copy")?;
        find(object, from)
    }

    /// Carries it out.
    pub fn apply(&self, object: &mut Value) -> Result<(), OperationError> {
        match self.kind() {
            "add" => self.add(object),
            "remove" => self.remove(object),
            "replace" => self.replace(object),
            "move" => self.relocate(object),
            "copy" => self.copy(object),
            "test" => self.test(object),
            other => Err(OperationError::Kind(other.into())),
        }
    }

    fn add(&self, object: &mut Value) -> Result<(), OperationError> {
        let path = self.simple_path("add")?;
        let place = find(object, path).ok_or_else(|| no_place("add", "doc is missing path", format!("\"{path}\"")))?;
        place.add(self.given()).map_err(refused("add", "path", path))
    }

    fn remove(&self, object: &mut Value) -> Result<(), OperationError> {
        let path = self.simple_path("remove")?;
        let missing = || no_place("remove", "doc is missing path", format!("\"{path}\""));
        let removed = find(object, path).ok_or_else(missing)?.remove();
        removed.map(drop).map_err(refused("remove", "path", path))
    }

    fn replace(&self, object: &mut Value) -> Result<(), OperationError> {
        let path = self.text("replace", "path")?;
        if path.is_empty() {
            let whole = self.value().filter(|value| value.is_object() || value.is_array());
            *object = whole.ok_or(OperationError::Root)?.clone();
            return Ok(());
        }
        let missing = |what| no_place("replace", what, path.to_owned());
        let place = find(object, path).ok_or_else(|| missing("doc is missing path"))?;
        place.set(self.given()).map_err(|_| missing("doc is missing key"))
    }

    fn relocate(&self, object: &mut Value) -> Result<(), OperationError> {
        let from = self.text("move", "from")?;
        let place = find(object, from).ok_or_else(|| no_place("move", "doc is missing from path", from.into()))?;
        let key = place.key.clone();
        let value = place.remove().map_err(refused("move", "path", &key))?;
        let path = self.text("move", "path")?;
        destination(object, "move", path)?.add(value).map_err(refused("move", "path", path))
    }

    fn copy(&self, object: &mut Value) -> Result<(), OperationError> {
        let from = self.text("copy", "from")?;
        let place = find(object, from).ok_or_else(|| no_place("copy", "doc is missing from path", from.into()))?;
        let value = place.get().map_err(refused("copy", "from", from))?.clone();
        let path = self.simple_path("copy")?;
        destination(object, "copy", path)?.add(value).map_err(OperationError::Copy)
    }

    fn test(&self, object: &mut Value) -> Result<(), OperationError> {
        let path = self.text("test", "path")?;
        let place = match path {
            "" => None,
            path => Some(find(object, path).ok_or_else(|| no_place("test", "is missing path", path.into()))?),
        };
        let found = match &place {
            Some(place) => place.get().map_err(refused("test", "path", path))?,
            None => object,
        };
        let same = *found == self.given();
        let different = || OperationError::Test { path: path.into(), source: OperationCause::Different };
        if same { Ok(()) } else { Err(different()) }
    }

    fn given(&self) -> Value {
        self.value().cloned().unwrap_or_default()
    }

    fn text(&self, op: &'static str, field: &'static str) -> Result<&'a str, OperationError> {
        let source = match self.0.get(field) {
            Some(Value::String(text)) => return Ok(text),
            None | Some(Value::Null) if field == "from" => OperationCause::NoField(", missing from"),
            None | Some(Value::Null) => OperationCause::NoField(" missing path"),
            Some(other) => OperationCause::NotText(type_of(other)),
        };
        Err(OperationError::Field { op, field, source })
    }

    /// The path, for operations that do not say what is wrong with it.
    fn simple_path(&self, op: &'static str) -> Result<&'a str, OperationError> {
        let source = OperationCause::Missing;
        self.text(op, "path").map_err(|_| OperationError::Field { op, field: "path", source })
    }
}

fn destination<'a>(object: &'a mut Value, op: &'static str, path: &str) -> Result<Place<'a>, OperationError> {
    find(object, path).ok_or_else(|| no_place(op, "doc is missing destination path", path.to_owned()))
}

fn no_place(op: &'static str, lacking: &'static str, place: String) -> OperationError {
    OperationError::NoPlace { op, lacking, place, source: OperationCause::Missing }
}

fn refused(op: &'static str, field: &'static str, place: &str) -> impl FnOnce(OperationCause) -> OperationError {
    move |source| OperationError::Refused { op, field, place: place.into(), source }
}

/// The type of a value, in the words of the Go language.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
