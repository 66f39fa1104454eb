//! From wire fields to JSON, guided by a schema.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use osc_schema::{Kind, MAX_DEPTH, Node};
use serde_json::{Map, Number, Value};

use super::{
    DecodeError, malformed,
    messages::{Member, Message, message_of},
    wire::{Field, Reader},
};
use crate::meta;

/// Fields whose zero means something: Go clients send all others even when nobody set them.
const ZERO_COUNTS: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseTransitions",
    "manualSelector",
    "maxFailedIndexes",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "podInfoOnMount",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxMount",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "started",
    "startingDeadlineSeconds",
    "storageCapacity",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// Reads the message of a whole object.
pub(super) fn object(
    message: &'static Message,
    node: Node<'static>,
    bytes: &[u8],
) -> Result<Map<String, Value>, DecodeError> {
    let mut map = Map::new();
    read(message, node, bytes, &mut map, MAX_DEPTH)?;
    Ok(map)
}

/// Adds the fields of one message to `map`, which `node` describes.
fn read(
    message: &'static Message,
    node: Node<'static>,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let broken = |problem| malformed(message.name, problem);
    let depth = depth.checked_sub(1).ok_or_else(|| broken("it is nested too deeply"))?;
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.next_field().map_err(broken)? {
        match message.member(number) {
            None => {}
            Some(Member::Inline(inline)) => read(inline, node, field.bytes().map_err(broken)?, map, depth)?,
            Some(Member::Field(name)) => {
                let Some(target) = node.property(name) else { continue };
                let context = Context { message, depth };
                if target.kind() == Kind::Array {
                    context.item(name, target, field, map)?;
                } else if target.kind() == Kind::Object && target.additional().is_some() {
                    context.entry(name, target, field, map)?;
                } else if let Some(value) = context.value(target, field)?
                    && (!is_zero(&value) || zero_counts(node, name))
                {
                    map.insert(name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn zero_counts(parent: Node<'_>, name: &str) -> bool {
    ZERO_COUNTS.contains(&name) || parent.schema().checks.required.iter().any(|required| required == name)
}

/// Where in the input a value stands.
#[derive(Clone, Copy)]
struct Context {
    message: &'static Message,
    depth: usize,
}

impl Context {
    fn broken(self, problem: &'static str) -> DecodeError {
        malformed(self.message.name, problem)
    }

    /// One value; nothing for a time nobody set.
    fn value(self, node: Node<'static>, field: Field<'_>) -> Result<Option<Value>, DecodeError> {
        let broken = |problem| self.broken(problem);
        if let Some(reference) = node.site().reference.as_deref() {
            let short = reference.rsplit('.').next().unwrap_or(reference);
            match short {
                "Time" | "MicroTime" => return self.time(field, short == "MicroTime"),
                "Quantity" => return self.quantity(field).map(Some),
                "IntOrString" => return self.int_or_string(field).map(Some),
                "RawExtension" | "FieldsV1" => return self.json(field).map(Some),
                _ => {}
            }
            if let Some(message) = message_of(reference) {
                let mut map = Map::new();
                read(message, node, field.bytes().map_err(broken)?, &mut map, self.depth)?;
                return Ok(Some(Value::Object(map)));
            }
        }
        let value = match node.kind() {
            Kind::String if node.schema().format.as_deref() == Some("byte") => {
                STANDARD.encode(field.bytes().map_err(broken)?).into()
            }
            Kind::String => field.text().map_err(broken)?.into(),
            Kind::Integer => field.integer().map_err(broken)?.into(),
            Kind::Boolean => (field.integer().map_err(broken)? != 0).into(),
            Kind::Number => {
                let number = Number::from_f64(field.double().map_err(broken)?);
                number.ok_or_else(|| broken("a number is not finite"))?.into()
            }
            Kind::Any | Kind::Object | Kind::Array => return Ok(None),
        };
        Ok(Some(value))
    }

    /// One item of a list, or several packed ones.
    fn item(
        self,
        name: &str,
        list: Node<'static>,
        field: Field<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let Some(node) = list.items() else { return Ok(()) };
        let mut items = Vec::new();
        match field {
            Field::Bytes(bytes) if matches!(node.kind(), Kind::Integer | Kind::Boolean) => {
                let mut packed = Reader::new(bytes);
                while !packed.is_empty() {
                    let item = Field::Varint(packed.varint().map_err(|problem| self.broken(problem))?);
                    items.extend(self.value(node, item)?);
                }
            }
            field => items.extend(self.value(node, field)?),
        }
        match map.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.extend(items),
            _ => return Err(self.broken("a list is no list")),
        }
        Ok(())
    }

    /// One entry of a map: a message of key and value.
    fn entry(
        self,
        name: &str,
        node: Node<'static>,
        field: Field<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let broken = |problem| self.broken(problem);
        let Some(values) = node.additional() else { return Ok(()) };
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            match number {
                1 => key = field.text().map_err(broken)?.to_owned(),
                2 if values.kind() == Kind::Array => value = Some(self.wrapped(values, field)?),
                2 => value = self.value(values, field)?,
                _ => {}
            }
        }
        // An empty string or amount is left out on the wire.
        let value = value.unwrap_or_else(|| if values.int_or_string() { "0".into() } else { "".into() });
        match map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(entries) => entries.insert(key, value),
            _ => return Err(broken("a map is no map")),
        };
        Ok(())
    }

    /// A list as the value of a map: a message that holds nothing but the list.
    fn wrapped(self, list: Node<'static>, field: Field<'_>) -> Result<Value, DecodeError> {
        let broken = |problem| self.broken(problem);
        let mut map = Map::new();
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            if number == 1 {
                self.item("items", list, field, &mut map)?;
            }
        }
        Ok(map.remove("items").unwrap_or_else(|| Value::Array(Vec::new())))
    }

    /// Seconds and nanoseconds.
    fn time(self, field: Field<'_>, micro: bool) -> Result<Option<Value>, DecodeError> {
        let broken = |problem| self.broken(problem);
        let (mut seconds, mut nanos) = (None, 0);
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            match number {
                1 => seconds = Some(field.integer().map_err(broken)?),
                2 => nanos = field.integer().map_err(broken)?,
                _ => {}
            }
        }
        let Some(seconds) = seconds else { return Ok(None) };
        let nanos = i32::try_from(nanos).map_err(|_| broken("a time is out of range"))?;
        let time = Timestamp::new(seconds, nanos).map_err(|_| broken("a time is out of range"))?;
        Ok(Some(if micro { meta::format_micro_time(time) } else { meta::format_time(time) }.into()))
    }

    fn quantity(self, field: Field<'_>) -> Result<Value, DecodeError> {
        let broken = |problem| self.broken(problem);
        let mut text = "0";
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            if number == 1 {
                text = field.text().map_err(broken)?;
            }
        }
        Ok(if text.is_empty() { "0" } else { text }.into())
    }

    /// Type (0 integer, 1 string), integer, string.
    fn int_or_string(self, field: Field<'_>) -> Result<Value, DecodeError> {
        let broken = |problem| self.broken(problem);
        let (mut kind, mut integer, mut text) = (0, 0, "");
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            match number {
                1 => kind = field.integer().map_err(broken)?,
                2 => integer = field.integer().map_err(broken)?,
                3 => text = field.text().map_err(broken)?,
                _ => {}
            }
        }
        match kind {
            0 => Ok(integer.into()),
            1 => Ok(text.into()),
            _ => Err(broken("an IntOrString is neither")),
        }
    }

    /// JSON inside a message of one field.
    fn json(self, field: Field<'_>) -> Result<Value, DecodeError> {
        let broken = |problem| self.broken(problem);
        let mut json: &[u8] = b"{}";
        let mut reader = Reader::new(field.bytes().map_err(broken)?);
        while let Some((number, field)) = reader.next_field().map_err(broken)? {
            if number == 1 {
                json = field.bytes().map_err(broken)?;
            }
        }
        serde_json::from_slice(json).map_err(|_| broken("what should be JSON inside is not"))
    }
}
