//! Types of expressions, as far as they are known before there are values.

use std::fmt;
use std::sync::Arc;

use super::value::{Value, as_optional};
use crate::meta::OBJECT_META;
use crate::model::Kind;
use crate::node::Node;

/// What is known about a value.
#[derive(Clone, Debug)]
pub(crate) enum Type<'a> {
    /// Nothing.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type<'a>>),
    /// From strings to values of one type.
    Map(Arc<Type<'a>>),
    /// Fields as described.
    Object(Node<'a>),
    /// Object metadata, of which rules see the names only.
    Metadata,
    Optional(Arc<Type<'a>>),
    /// A type of a function library, or `type` itself.
    Named(&'static str),
}

/// Types a function library adds, by the names signatures use.
pub(crate) const NAMED: [&str; 8] = ["quantity", "url", "ip", "cidr", "semver", "format", "type", "any_number"];

impl<'a> Type<'a> {
    /// What values described by `node` are.
    pub(crate) fn of(node: Node<'a>) -> Self {
        if node.site().reference.as_deref() == Some(OBJECT_META) {
            return Type::Metadata;
        }
        if node.int_or_string() {
            return Type::Dyn;
        }
        match node.kind() {
            Kind::Any => Type::Dyn,
            Kind::Boolean => Type::Bool,
            Kind::Integer => Type::Int,
            Kind::Number => Type::Double,
            Kind::String => match node.schema().format.as_deref() {
                Some("date-time" | "datetime" | "date") => Type::Timestamp,
                Some("duration") => Type::Duration,
                Some("byte") => Type::Bytes,
                _ => Type::Text,
            },
            Kind::Array => Type::List(Arc::new(node.items().map_or(Type::Dyn, Type::of))),
            Kind::Object => match node.additional() {
                Some(values) => Type::Map(Arc::new(Type::of(values))),
                None if node.schema().properties.is_empty() && node.preserves_unknown_fields() => Type::Dyn,
                None => Type::Object(node),
            },
        }
    }

    /// An optional of this, unless it is one already.
    pub(crate) fn optional(self) -> Self {
        match self {
            Type::Optional(_) => self,
            other => Type::Optional(Arc::new(other)),
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double | Type::Dyn)
    }

    /// Whether a value of this type may stand where `wanted` is. What is not known may.
    pub(crate) fn fits(&self, wanted: &Type<'_>) -> bool {
        match (self, wanted) {
            (Type::Dyn | Type::Null, _) | (_, Type::Dyn | Type::Null) => true,
            (Type::List(a), Type::List(b)) | (Type::Map(a), Type::Map(b)) => a.fits(b),
            (Type::Optional(a), Type::Optional(b)) => a.fits(b),
            (number, Type::Named("any_number")) => number.is_number(),
            (Type::Named(a), Type::Named(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(wanted),
        }
    }

    /// Whether `value` is of this type.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Type::Dyn, _) => true,
            (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Uint, Value::UInt(_))
            | (Type::Double, Value::Float(_))
            | (Type::Text, Value::String(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::Timestamp, Value::Timestamp(_))
            | (Type::Map(_), Value::Map(_)) => true,
            (Type::Named("any_number"), Value::Int(_) | Value::UInt(_) | Value::Float(_)) => true,
            (Type::Named("type"), Value::Function(..)) => true,
            (Type::Named(name), Value::Opaque(opaque)) => {
                let (_, known) = opaque.runtime_type_name().rsplit_once('.').unwrap_or_default();
                known.eq_ignore_ascii_case(name)
            }
            (Type::List(item), Value::List(items)) => {
                matches!(**item, Type::Dyn) || items.iter().all(|value| item.accepts(value))
            }
            (Type::Optional(inner), value) => match as_optional(value) {
                Some(held) => held.is_none_or(|value| inner.accepts(value)),
                None => false,
            },
            _ => false,
        }
    }

    /// The type of something that is either.
    pub(crate) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Type::Null, _) => other,
            (_, Type::Null) => self,
            (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
            _ if self.fits(&other) => self,
            _ => Type::Dyn,
        }
    }

    /// Reads the name of a type in a signature: `string`, `list(dyn)`, `quantity`.
    pub(crate) fn named(name: &str) -> Option<Type<'static>> {
        let inside = |prefix: &str| name.strip_prefix(prefix)?.strip_prefix('(')?.strip_suffix(')');
        Some(match name {
            "dyn" => Type::Dyn,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::Text,
            "bytes" => Type::Bytes,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "map" => Type::Map(Arc::new(Type::Dyn)),
            _ => match (inside("list"), inside("optional")) {
                (Some(item), _) => Type::List(Arc::new(Type::named(item)?)),
                (_, Some(value)) => Type::Optional(Arc::new(Type::named(value)?)),
                _ => Type::Named(NAMED.into_iter().find(|known| *known == name)?),
            },
        })
    }
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::Text => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(value) => write!(f, "map(string, {value})"),
            Type::Object(_) | Type::Metadata => f.write_str("object"),
            Type::Optional(value) => write!(f, "optional({value})"),
            Type::Named(name) => f.write_str(name),
        }
    }
}
