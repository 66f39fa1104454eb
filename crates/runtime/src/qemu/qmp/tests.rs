//! The client against a scripted other end: good, slow, broken and hostile.

use std::{
    io::{IoSliceMut, Read},
    os::fd::{FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use osc_agent_protocol::Kind;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::*;
use crate::deadline::Deadline;

const GREETING: &str = r#"{"QMP":{"version":{"qemu":{"major":7}},"capabilities":["oob"]}}"#;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

/// The QEMU side.
struct Peer(BufReader<UnixStream>);

impl Peer {
    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// Number and name of the next command.
    async fn hear(&mut self) -> (u64, String) {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        let command: Value = serde_json::from_str(&line).unwrap();
        (command["id"].as_u64().unwrap(), command["execute"].as_str().unwrap().to_owned())
    }

    async fn answer(&mut self, want: &str, value: Value) {
        let (id, name) = self.hear().await;
        assert_eq!(name, want);
        self.say(&json!({ "return": value, "id": id }).to_string()).await;
    }
}

/// A client and its peer after negotiation.
async fn connected() -> (Client, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = Peer(BufReader::new(theirs));
    let negotiate = async {
        peer.say(GREETING).await;
        peer.answer("qmp_capabilities", json!({})).await;
    };
    let (client, ()) = tokio::join!(Client::connect(ours, soon()), negotiate);
    (client.unwrap(), peer)
}

#[tokio::test]
async fn replies_in_any_order_find_their_callers() {
    let (client, mut peer) = connected().await;
    let serve = async {
        let (first, second) = (peer.hear().await, peer.hear().await);
        peer.say(r#"{"event":"RESUME","timestamp":{"seconds":1,"microseconds":2}}"#).await;
        for (id, name) in [second, first] {
            peer.say(&json!({ "return": name, "id": id }).to_string()).await;
        }
    };
    let (one, two, ()) = tokio::join!(
        client.query::<String>("query-one", Value::Null, soon()),
        client.query::<String>("query-two", Value::Null, soon()),
        serve
    );
    assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("query-one", "query-two"));
}

#[tokio::test]
async fn events_reach_those_who_listen() {
    let (client, mut peer) = connected().await;
    let mut events = client.events();
    peer.say(r#"{"event":"DEVICE_DELETED","data":{"device":"d","path":"/p"}}"#).await;
    assert_eq!(events.recv().await.unwrap(), Event::DeviceDeleted(Some("d".into())));
}

#[tokio::test]
async fn a_refusal_carries_what_qemu_says() {
    let (client, mut peer) = connected().await;
    for (class, kind) in [("GenericError", Kind::Invalid), ("DeviceNotFound", Kind::NotFound)] {
        let serve = async {
            let (id, _) = peer.hear().await;
            peer.say(&json!({ "error": { "class": class, "desc": "no such bus" }, "id": id }).to_string()).await;
        };
        let (result, ()) = tokio::join!(client.execute("device_add", json!({}), soon()), serve);
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, "QEMU refuses device_add: no such bus"));
    }
}

#[tokio::test]
async fn a_late_reply_is_nobodys() {
    let (client, mut peer) = connected().await;
    let slow = client.execute("stop", Value::Null, Deadline::after(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(slow.kind(), Kind::Timeout);
    peer.answer("stop", json!({})).await;
    let (result, ()) = tokio::join!(client.execute("cont", Value::Null, soon()), peer.answer("cont", json!({})));
    result.unwrap();
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let huge = "x".repeat(wire::LONGEST + 2);
    for line in ["gibberish", "{}", "{\"return\":", "\u{0}\u{0}", &huge] {
        let (client, mut peer) = connected().await;
        let serve = async {
            peer.hear().await;
            // The client may hang up before it has taken all of a huge line.
            let _ = peer.0.write_all(format!("{line}\n").as_bytes()).await;
        };
        let (result, ()) = tokio::join!(client.execute("stop", Value::Null, soon()), serve);
        assert!(matches!(result, Err(QmpError::Lost { command: "stop" })), "{line:.20}: {result:?}");
        let next = client.execute("cont", Value::Null, soon()).await;
        assert!(matches!(next, Err(QmpError::Lost { .. })), "{line:.20}: {next:?}");
    }
}

#[tokio::test]
async fn an_end_without_a_reply_is_noticed_at_once() {
    let (client, mut peer) = connected().await;
    let serve = async {
        peer.hear().await;
        drop(peer);
    };
    let (result, ()) = tokio::join!(client.execute("stop", Value::Null, soon()), serve);
    assert!(matches!(result, Err(QmpError::Lost { .. })), "{result:?}");
}

#[tokio::test]
async fn only_a_greeting_opens_the_connection() {
    for (line, kind) in [(r#"{"return":{},"id":1}"#, Kind::Unavailable), ("SSH-2.0", Kind::Unavailable)] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        assert_eq!(Client::connect(ours, soon()).await.unwrap_err().kind(), kind, "{line}");
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let silent = Client::connect(ours, Deadline::after(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(silent.kind(), Kind::Timeout);
    drop(theirs);
}

#[tokio::test]
async fn descriptors_travel_with_their_command() {
    let (client, peer) = connected().await;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let serve = async {
        let socket = peer.0.into_inner();
        socket.readable().await.unwrap();
        let (id, descriptor) = take_descriptor(&socket);
        let mut socket = socket;
        socket.write_all(format!("{{\"return\":{{}},\"id\":{id}}}\n").as_bytes()).await.unwrap();
        descriptor
    };
    let (result, descriptor) = tokio::join!(client.give("fd-1", writer.into(), soon()), serve);
    result.unwrap();
    std::io::Write::write_all(&mut std::fs::File::from(descriptor), b"through").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

/// Reads one command with one descriptor.
#[allow(unsafe_code)]
fn take_descriptor(socket: &UnixStream) -> (u64, OwnedFd) {
    use std::os::fd::AsRawFd;
    let (mut bytes, mut space) = ([0; 512], nix::cmsg_space!([RawFd; 1]));
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else { panic!("no descriptor") };
    // SAFETY: the kernel has just made the number for us and nobody else knows it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    let length = message.bytes;
    let command: Value = serde_json::from_slice(&bytes[..length]).unwrap();
    assert_eq!((&command["execute"], &command["arguments"]["fdname"]), (&json!("getfd"), &json!("fd-1")));
    (command["id"].as_u64().unwrap(), descriptor)
}
