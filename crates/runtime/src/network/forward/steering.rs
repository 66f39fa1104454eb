//! Which socket takes a new connection of a namespace: a program of type
//! `BPF_PROG_TYPE_SK_LOOKUP` (linux/bpf.h, `struct bpf_sk_lookup`), asked before
//! the kernel looks for a listener itself.
//!
//! It takes TCP to 127.0.0.0/8 and nothing else. What comes in on other interfaces
//! of the pod belongs to the guest and must never arrive at its loopback.

use std::{
    fs::File,
    io,
    net::TcpListener,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use super::sys;

/// Registers: the result and arguments of a call, what calls keep, the stack.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const CONTEXT: u8 = 6;
const SOCKET: u8 = 7;
const STACK: u8 = 10;

/// Operations (`code` of `struct bpf_insn`).
mod op {
    pub const LOAD_BYTE: u8 = 0x71;
    pub const LOAD_WORD: u8 = 0x61;
    pub const LOAD_MAP: u8 = 0x18;
    pub const STORE_WORD: u8 = 0x62;
    pub const MOVE: u8 = 0xb7;
    pub const MOVE_REGISTER: u8 = 0xbf;
    pub const ADD: u8 = 0x07;
    pub const JUMP_IF_EQUAL: u8 = 0x15;
    pub const JUMP_UNLESS_EQUAL: u8 = 0x55;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

/// Functions of the kernel a program may call.
mod helper {
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const SK_RELEASE: i32 = 86;
    pub const SK_ASSIGN: i32 = 124;
}

/// Offsets in `struct bpf_sk_lookup`.
mod field {
    pub const FAMILY: i16 = 8;
    pub const PROTOCOL: i16 = 12;
    /// Network order: its first byte is the network's.
    pub const LOCAL_IP4: i16 = 40;
}

/// The number in `LOAD_MAP` is a descriptor (`BPF_PSEUDO_MAP_FD`).
const BY_DESCRIPTOR: u8 = 1;
const LOOPBACK_NETWORK: i32 = 127;
/// `SK_PASS`: go on, with the socket that was assigned, if one was.
const PASS: i32 = 1;

/// Steers as long as it lives.
#[derive(Debug)]
pub struct Steering {
    _link: OwnedFd,
}

impl Steering {
    /// Gives `listener` all connections to loopback of the namespace at `netns`,
    /// which must be its own.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn to(listener: &TcpListener, netns: &Path) -> io::Result<Self> {
        let sockets = sys::socket_map()?;
        sys::put_socket(sockets.as_fd(), listener.as_fd())?;
        let program = sys::load_lookup_program(&program(sockets.as_raw_fd()))?;
        // The link keeps the program, and the program its map.
        let link = sys::link_to_namespace(program.as_fd(), File::open(netns)?.as_fd())?;
        Ok(Self { _link: link })
    }
}

/// `struct bpf_insn`: code, registers, offset, immediate value.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_le_bytes([code, to | from << 4, low, high, a, b, c, d])
}

/// The program; `sockets` is the map whose only entry is the listener.
fn program(sockets: i32) -> Vec<u64> {
    let pass = [instruction(op::MOVE, R0, 0, 0, PASS), instruction(op::EXIT, 0, 0, 0, 0)];
    let assign = [
        instruction(op::MOVE_REGISTER, CONTEXT, R1, 0, 0),
        instruction(op::STORE_WORD, STACK, 0, -4, 0),
        instruction(op::MOVE_REGISTER, R2, STACK, 0, 0),
        instruction(op::ADD, R2, 0, 0, -4),
        // Two words long.
        instruction(op::LOAD_MAP, R1, BY_DESCRIPTOR, 0, sockets),
        instruction(0, 0, 0, 0, 0),
        instruction(op::CALL, 0, 0, 0, helper::MAP_LOOKUP_ELEM),
        instruction(op::JUMP_IF_EQUAL, R0, 0, 7, 0),
        instruction(op::MOVE_REGISTER, SOCKET, R0, 0, 0),
        instruction(op::MOVE_REGISTER, R1, CONTEXT, 0, 0),
        instruction(op::MOVE_REGISTER, R2, SOCKET, 0, 0),
        instruction(op::MOVE, R3, 0, 0, 0),
        instruction(op::CALL, 0, 0, 0, helper::SK_ASSIGN),
        instruction(op::MOVE_REGISTER, R1, SOCKET, 0, 0),
        instruction(op::CALL, 0, 0, 0, helper::SK_RELEASE),
    ];
    let wanted = [
        (op::LOAD_WORD, field::FAMILY, libc::AF_INET),
        (op::LOAD_WORD, field::PROTOCOL, libc::IPPROTO_TCP),
        (op::LOAD_BYTE, field::LOCAL_IP4, LOOPBACK_NETWORK),
    ];
    let mut out = Vec::new();
    for (number, (load, offset, value)) in wanted.into_iter().enumerate() {
        // Behind what is left of the questions and the assignment.
        let away = 2 * (wanted.len() - number - 1) + assign.len();
        out.push(instruction(load, R0, R1, offset, 0));
        out.push(instruction(op::JUMP_UNLESS_EQUAL, R0, 0, away as i16, value));
    }
    out.extend(assign);
    out.extend(pass);
    out
}
