//! bpf(2), which has no safe wrapper (linux/bpf.h, `union bpf_attr`).

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_SK_LOOKUP: u32 = 36;

fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(returned).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map of one socket, number 0. It does not keep the socket open.
pub fn socket_map() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_SOCKMAP: u32 = 15;
    // Type, bytes of a key and of a value, entries, flags.
    let attr: [u32; 5] = [BPF_MAP_TYPE_SOCKMAP, 4, 8, 1, 0];
    // SAFETY: `attr` is as long as said and the kernel only reads it.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) })
}

/// Puts `socket` into `map`.
pub fn put_socket(map: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    let (key, value) = (0u32, socket.as_raw_fd() as u64);
    // Map, key, value, flags; each 64 bits wide.
    let attr: [u64; 4] = [map.as_raw_fd() as u64, (&raw const key) as u64, (&raw const value) as u64, 0];
    // SAFETY: `attr` is as long as said; key and value it points to outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, attr.as_ptr(), size_of_val(&attr)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The part of `union bpf_attr` that loading a program needs.
#[repr(C)]
struct LoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Loads a program for the lookup of sockets.
pub fn load_lookup_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;
    let attr = LoadAttr {
        kind: BPF_PROG_TYPE_SK_LOOKUP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"port_forward\0\0\0\0",
        interface: 0,
        attach_type: BPF_SK_LOOKUP,
    };
    // SAFETY: `attr` is as long as said; the instructions and the license it points to outlive the call.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>()) })
}

/// Attaches a program to a network namespace for as long as the result is open.
pub fn link_to_namespace(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    // Program, target, attach type, flags.
    let attr: [u32; 4] = [program.as_raw_fd() as u32, netns.as_raw_fd() as u32, BPF_SK_LOOKUP, 0];
    // SAFETY: `attr` is as long as said and both descriptors are borrowed for the call.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, attr.as_ptr(), size_of_val(&attr)) })
}
