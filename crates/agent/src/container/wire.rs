//! What the agent and the process that builds a container say to each other.
//!
//! Frames travel over a stream socket, each a tag byte, a little-endian `u32`
//! length and the payload; descriptors ride on the first byte.
//!
//! ```text
//!   agent                                  kata-agent init
//!     │── Request (header, spec, stdio) ──────►│
//!     │◄── Terminal (pty master) ──────────────│  when it has one
//!     │◄── MapIds ── Go ──────────────────────►│  with a user namespace
//!     │◄── Pid ────────────────────────────────│  with a user namespace
//!     │◄── RunHooks ── Go ────────────────────►│  prestart, createRuntime
//!     │◄── Ready ──────────────────────────────│  first process only
//!     │── Go ─────────────────────────────────►│  start
//!     │◄── end of file: its program runs ──────│
//! ```
//!
//! At any point the builder may say `Failed` instead; it then ends.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use osc_agent_protocol::{Kind, kind, oci};
use protobuf::{Enum, Message};
use serde::{Deserialize, Serialize};

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// To the builder: what to build.
    Request = 1,
    /// To the builder: what you asked for is done; go on.
    Go,
    /// To the agent: the master of the terminal is attached.
    Terminal,
    /// To the agent: write my id maps.
    MapIds,
    /// To the agent: from now on the process with this id is the one to watch.
    Pid,
    /// To the agent: run the hooks that belong outside.
    RunHooks,
    /// To the agent: built, waiting for the start order.
    Ready,
    /// To the agent: it cannot be done.
    Failed,
}

impl Tag {
    const ALL: [Self; 8] =
        [Self::Request, Self::Go, Self::Terminal, Self::MapIds, Self::Pid, Self::RunHooks, Self::Ready, Self::Failed];

    fn from_byte(byte: u8) -> io::Result<Self> {
        let known = Self::ALL.into_iter().find(|tag| *tag as u8 == byte);
        known.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown frame"))
    }
}

/// Bytes before the payload.
pub const HEAD: usize = 5;
/// Longest payload: what one RPC can carry, and the header.
const PAYLOAD_LIMIT: usize = osc_agent_protocol::MAX_FRAME + (64 << 10);
/// Most descriptors one frame carries.
const MAX_FDS: usize = 4;

/// Whether a container is built or joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Build it: namespaces, mounts, everything.
    Build {
        /// Namespaces to make, as `CLONE_` flags.
        unshare: i32,
        /// Namespaces to enter: path and `CLONE_` flag.
        join: Vec<(PathBuf, i32)>,
    },
    /// Join the one whose first process the last descriptor refers to.
    Join {
        /// Namespaces to enter, as `CLONE_` flags.
        namespaces: i32,
    },
}

/// The small part of a request; the specification follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Container.
    pub id: String,
    /// Its bundle directory.
    pub bundle: PathBuf,
    /// What to do.
    pub task: Task,
}

/// Payload of a request: header length, header, specification.
///
/// # Errors
/// When either cannot be encoded.
pub fn encode_request(header: &Header, spec: &oci::Spec) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header)?;
    let mut payload = Vec::with_capacity(4 + header.len() + spec.compute_size() as usize);
    payload.extend_from_slice(&(header.len() as u32).to_le_bytes());
    payload.extend_from_slice(&header);
    spec.write_to_vec(&mut payload).map_err(io::Error::from)?;
    Ok(payload)
}

/// The parts of a request's payload.
///
/// # Errors
/// `InvalidData` when it is not one.
pub fn decode_request(payload: &[u8]) -> io::Result<(Header, oci::Spec)> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "request cut short");
    let (len, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
    let (header, spec) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(short)?;
    Ok((serde_json::from_slice(header)?, oci::Spec::parse_from_bytes(spec).map_err(io::Error::from)?))
}

/// Payload of [`Tag::Failed`]: gRPC code of the kind, then the text.
pub fn encode_failure(kind: Kind, reason: &str) -> Vec<u8> {
    let mut payload = vec![kind::code(kind).value() as u8];
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// The parts of a failure's payload.
pub fn decode_failure(payload: &[u8]) -> (Kind, String) {
    let (code, reason) = payload.split_first().map_or((0, &[][..]), |(code, reason)| (*code, reason));
    let kind = ttrpc::Code::from_i32(code.into()).map_or(Kind::Bug, kind::of_code);
    (kind, String::from_utf8_lossy(reason).into_owned())
}

/// Head of a frame with `len` bytes of payload.
pub fn head(tag: Tag, len: usize) -> [u8; HEAD] {
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [tag as u8, a, b, c, d]
}

/// The parts of a head.
///
/// # Errors
/// `InvalidData` for an unknown tag or a payload past the limit.
pub fn parse_head(head: [u8; HEAD]) -> io::Result<(Tag, usize)> {
    let [tag, len @ ..] = head;
    let len = u32::from_le_bytes(len) as usize;
    if len > PAYLOAD_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    Ok((Tag::from_byte(tag)?, len))
}

/// Sends `bytes` in one go with descriptors attached; returns how many went out.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send_with_fds(socket: &impl AsRawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let bytes = [IoSlice::new(bytes)];
    Ok(sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives into `bytes` together with descriptors; returns how many bytes came.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn receive_with_fds(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(super::sys::adopt));
        }
    }
    Ok((message.bytes, fds))
}

/// A frame as received.
#[derive(Debug)]
pub struct Frame {
    /// Its meaning.
    pub tag: Tag,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

/// The builder's end of the conversation; blocking.
#[derive(Debug)]
pub struct Control(UnixStream);

impl Control {
    /// Speaks over `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        Self(UnixStream::from(socket))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the agent is gone.
    pub fn send(&mut self, tag: Tag, payload: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let head = head(tag, payload.len());
        let sent = send_with_fds(&self.0, &head, fds)?;
        self.0.write_all(&head[sent..])?;
        self.0.write_all(payload)
    }

    /// Receives one frame.
    ///
    /// # Errors
    /// `UnexpectedEof` when the agent is gone, `InvalidData` when it talks nonsense.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut bytes = [0; HEAD];
        let (n, fds) = receive_with_fds(&self.0, &mut bytes)?;
        self.0.read_exact(&mut bytes[n..])?;
        let (tag, len) = parse_head(bytes)?;
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload)?;
        Ok(Frame { tag, payload, fds })
    }

    /// Asks the agent for something and waits until it is done.
    ///
    /// # Errors
    /// When the agent is gone.
    pub fn ask(&mut self, tag: Tag) -> io::Result<()> {
        self.send(tag, &[], &[])?;
        self.wait_for_go()
    }

    /// Waits for the agent's [`Tag::Go`].
    ///
    /// # Errors
    /// When the agent is gone or says something else.
    pub fn wait_for_go(&mut self) -> io::Result<()> {
        match self.receive()?.tag {
            Tag::Go => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "agent out of step")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn frames_carry_payload_and_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Control(ours), Control(theirs));
        let null = File::open("/dev/null").unwrap();
        ours.send(Tag::Terminal, b"abc", &[null.as_fd().as_raw_fd()]).unwrap();
        let frame = theirs.receive().unwrap();
        assert_eq!((frame.tag, &frame.payload[..], frame.fds.len()), (Tag::Terminal, &b"abc"[..], 1));
        drop(ours);
        assert_eq!(theirs.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn requests_survive_the_socket() {
        let header = Header {
            id: "c1".into(),
            bundle: "/run/kata-containers/c1".into(),
            task: Task::Build { unshare: 1, join: vec![("/proc/1/ns/ipc".into(), 2)] },
        };
        let spec = oci::Spec { Hostname: "pod".into(), ..oci::Spec::default() };
        let payload = encode_request(&header, &spec).unwrap();
        assert_eq!(decode_request(&payload).unwrap(), (header, spec));
        for cut in [0, 3, 10] {
            assert!(decode_request(&payload[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn failures_keep_their_kind() {
        for kind in [Kind::NotFound, Kind::Denied, Kind::Invalid, Kind::Bug, Kind::Timeout] {
            assert_eq!(decode_failure(&encode_failure(kind, "why")), (kind, "why".to_owned()));
        }
        assert_eq!(decode_failure(&[]), (Kind::Bug, String::new()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse_head([0, 0, 0, 0, 0]).is_err());
        assert!(parse_head([1, 255, 255, 255, 255]).is_err());
    }
}
