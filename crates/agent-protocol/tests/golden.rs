//! Wire compatibility cannot drift: every message, with every field set by one
//! fixed rule, serialises to the bytes in `messages.golden`, and every method has
//! its path. Strings are the name of their field, so renamed fields show too
//! (policies match on names).
//!
//! The rule: string and bytes = field name, bool = true, unsigned = 1009 × field
//! number, signed = −field number, enum = its last value, message = recursively,
//! repeated = two equal elements, map = one entry.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use osc_agent_protocol::{agent, csi, health, oci, types};
use protobuf::reflect::{
    FieldDescriptor, FileDescriptor, MessageDescriptor, ReflectValueBox, RuntimeFieldType, RuntimeType,
};

fn files() -> [&'static FileDescriptor; 5] {
    [
        agent::file_descriptor(),
        csi::file_descriptor(),
        health::file_descriptor(),
        oci::file_descriptor(),
        types::file_descriptor(),
    ]
}

fn value(kind: &RuntimeType, number: i64, name: &str) -> ReflectValueBox {
    match kind {
        RuntimeType::String => ReflectValueBox::String(name.to_owned()),
        RuntimeType::VecU8 => ReflectValueBox::Bytes(name.as_bytes().to_vec()),
        RuntimeType::Bool => ReflectValueBox::Bool(true),
        RuntimeType::U32 => ReflectValueBox::U32(number as u32 * 1009),
        RuntimeType::U64 => ReflectValueBox::U64(number as u64 * 1009),
        RuntimeType::I32 => ReflectValueBox::I32(-number as i32),
        RuntimeType::I64 => ReflectValueBox::I64(-number),
        RuntimeType::Enum(kind) => {
            let last = kind.values().last().unwrap();
            ReflectValueBox::Enum(kind.clone(), last.value())
        }
        RuntimeType::Message(kind) => ReflectValueBox::Message(full(kind)),
        other => panic!("no rule for {other:?}"),
    }
}

fn set(message: &mut dyn protobuf::MessageDyn, field: &FieldDescriptor) {
    let (number, name) = (i64::from(field.number()), field.name().to_owned());
    match field.runtime_field_type() {
        RuntimeFieldType::Singular(kind) => field.set_singular_field(message, value(&kind, number, &name)),
        RuntimeFieldType::Repeated(kind) => {
            let mut list = field.mut_repeated(message);
            list.push(value(&kind, number, &name));
            list.push(value(&kind, number, &name));
        }
        RuntimeFieldType::Map(key, kind) => {
            field.mut_map(message).insert(value(&key, 1, &name), value(&kind, 2, &name));
        }
    }
}

fn full(kind: &MessageDescriptor) -> Box<dyn protobuf::MessageDyn> {
    let mut message = kind.new_instance();
    for field in kind.fields() {
        set(&mut *message, &field);
    }
    message
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden() -> BTreeMap<&'static str, &'static str> {
    include_str!("messages.golden")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .collect()
}

#[test]
fn every_message_keeps_its_bytes() {
    let mut want = golden();
    for kind in files().into_iter().flat_map(FileDescriptor::messages) {
        let got = hex(&full(&kind).write_to_bytes_dyn().unwrap());
        let want = want.remove(kind.name()).unwrap_or_else(|| panic!("{} is not in the golden file", kind.name()));
        assert_eq!(got, want, "{}", kind.name());
    }
    assert!(want.is_empty(), "messages that are gone: {:?}", want.keys());
}

#[test]
fn every_message_reads_its_own_bytes() {
    for kind in files().into_iter().flat_map(FileDescriptor::messages) {
        let full = full(&kind);
        let read = kind.parse_from_bytes(&full.write_to_bytes_dyn().unwrap()).unwrap();
        assert!(full.reflect_eq_dyn(&*read, &protobuf::reflect::ReflectEqMode::default()), "{}", kind.name());
    }
}

#[test]
fn every_method_keeps_its_path() {
    let mut got = Vec::new();
    for service in files().into_iter().flat_map(FileDescriptor::services) {
        for method in service.methods() {
            let proto = method.proto();
            got.push(format!(
                "grpc.{}/{} {} {}",
                service.proto().name(),
                proto.name(),
                proto.input_type(),
                proto.output_type()
            ));
        }
    }
    let want: Vec<&str> = include_str!("methods.golden").lines().collect();
    assert_eq!(got, want);
}
