//! What comes from the other side is hostile: no bytes may make a decoder panic,
//! hang or allocate beyond the frame limit. Each target runs for a bounded time
//! here; `cargo bolero test` runs the same targets under a coverage-guided engine.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{io::Cursor, panic::AssertUnwindSafe, time::Duration};

use osc_agent_protocol::{MAX_FRAME, agent, csi, health, oci, types};
use protobuf::{
    CodedInputStream, Message,
    reflect::{FileDescriptor, MessageDescriptor},
};
use ttrpc::proto::{GenMessage, Request, Response};

const FOR: Duration = Duration::from_secs(5);

fn messages() -> Vec<MessageDescriptor> {
    let files = [
        agent::file_descriptor(),
        csi::file_descriptor(),
        health::file_descriptor(),
        oci::file_descriptor(),
        types::file_descriptor(),
    ];
    files.into_iter().flat_map(FileDescriptor::messages).collect()
}

/// Well-formed bytes to start from: noise alone rarely gets past a first tag.
fn seeds() -> Vec<Vec<u8>> {
    let lines = include_str!("messages.golden").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| decode(line.split_once(' ').unwrap().1)).collect()
}

fn decode(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn messages_survive_any_bytes() {
    let (kinds, seeds) = (AssertUnwindSafe(messages()), seeds());
    let input = bolero::generator::produce::<(usize, usize, Vec<(u16, u8)>, Vec<u8>)>();
    bolero::check!().with_test_time(FOR).with_generator(input).for_each(|(kind, seed, edits, noise)| {
        let kinds = &*kinds;
        let kind = &kinds[kind % kinds.len()];
        drop(kind.parse_from_bytes(noise));
        let mut bytes = seeds[seed % seeds.len()].clone();
        for (at, value) in edits {
            let length = bytes.len();
            if length > 0 {
                bytes[usize::from(*at) % length] = *value;
            }
        }
        if let Ok(message) = kind.parse_from_bytes(&bytes) {
            message.write_to_bytes_dyn().unwrap();
        }
    });
}

#[test]
fn frames_survive_any_bytes() {
    let runtime = AssertUnwindSafe(tokio::runtime::Builder::new_current_thread().build().unwrap());
    bolero::check!().with_test_time(FOR).with_max_len(4096).for_each(|bytes: &[u8]| {
        let mut stream = Cursor::new(bytes);
        while let Ok(frame) = runtime.block_on(GenMessage::read_from(&mut stream)) {
            assert!(frame.payload.len() <= MAX_FRAME);
            drop(Request::parse_from_bytes(&frame.payload));
            drop(Response::parse_from_bytes(&frame.payload));
        }
    });
}

#[test]
fn a_frame_of_4_gib_is_refused_without_memory_for_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut frame = u32::MAX.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 2, 0]);
    frame.extend([0; 64]);
    assert!(runtime.block_on(GenMessage::read_from(Cursor::new(frame))).is_err());
}

#[test]
fn a_field_longer_than_its_message_is_refused_without_memory_for_it() {
    // Field 1, length-delimited, 2 GiB announced, nothing there.
    let bytes = [0x0a, 0x80, 0x80, 0x80, 0x80, 0x08];
    assert!(agent::StartContainerRequest::parse_from_bytes(&bytes).is_err());
    assert!(agent::StartContainerRequest::parse_from(&mut CodedInputStream::new(&mut Cursor::new(bytes))).is_err());
}
