//! System calls no safe wrapper exists for.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    ops::RangeInclusive,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::sys::signal::SigSet;
use tokio::io::unix::AsyncFd;

/// Attributes of `mount_setattr(2)`; libc does not name them yet.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes do not work.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access-time modes; cleared before one is set.
    pub const ATIME: u64 = 0x70;
    /// Access times are never updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation, one of the `MS_` values, or 0.
    pub propagation: u64,
    /// Namespace of an id-mapped mount; unused.
    userns: u64,
}

impl MountAttr {
    /// Sets `set`, clears `clear` and gives the mount `propagation` unless 0.
    pub fn new(set: u64, clear: u64, propagation: u64) -> Self {
        Self { set, clear, propagation, userns: 0 }
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_string(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A detached copy of the mount at `path`, with everything below it when `recursive`.
pub fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// A detached copy of what `place` refers to, with everything below it.
pub fn open_tree_at(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | (libc::AT_RECURSIVE | libc::AT_EMPTY_PATH) as libc::c_uint;
    // SAFETY: the descriptor is borrowed for the call, the path is a static empty string.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches the detached mount `tree` at `place`.
pub fn move_mount(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let (empty, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    let (from, to) = (tree.as_raw_fd(), place.as_raw_fd());
    // SAFETY: both descriptors are borrowed for the call, both paths are static empty strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) }).map(drop)
}

/// Changes attributes of the mount `tree` refers to.
pub fn mount_setattr(tree: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let (fd, empty, size) = (tree.as_raw_fd(), c"".as_ptr(), size_of::<MountAttr>());
    // SAFETY: `attr` has the kernel's layout and is `size` bytes long; the rest as above.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, empty, flags, std::ptr::from_ref(attr), size) }).map(drop)
}

/// A descriptor of the process `pid`, which must be a child not yet reaped.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends `signal` to the process `pidfd` refers to.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in its own.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// Marks every descriptor above standard error close-on-exec.
pub fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: takes numbers only and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Makes a non-blocking descriptor one that can be awaited.
pub fn pollable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same, open and for the same file, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Takes over standard input, which the caller must not use otherwise.
pub fn take_stdin() -> io::Result<OwnedFd> {
    // A duplicate, so that descriptor 0 can be replaced by that of the container.
    io::stdin().as_fd().try_clone_to_owned()
}

/// Takes ownership of a descriptor that was just received over a socket.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors the kernel has just installed for them.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes `fd` descriptor `number`, replacing what that was.
pub fn replace(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: callers replace standard streams only, which nobody holds as owned descriptors.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Gives every signal its default action and blocks none, whatever was
/// inherited: Rust programs ignore SIGPIPE, `posix_spawn` of the C library leaves
/// its two internal signals ignored, and whoever started us may ignore more.
pub fn reset_signals() -> io::Result<()> {
    /// Signals there are; glibc's own `sigaction` refuses two of them.
    const ALL: RangeInclusive<libc::c_int> = 1..=64;
    /// Handler, flags, restorer and mask, all zero: the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in ALL.filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let (action, old) = (DEFAULT.as_ptr(), std::ptr::null_mut::<u64>());
        // SAFETY: `action` has the kernel's layout with a mask of eight bytes; the default action runs no code.
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action, old, size_of::<u64>()) })?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Forks a child of our own parent, so that whoever waits for us waits for it
/// too. Returns its id in the parent, `None` in the child.
///
/// The caller must be single-threaded.
pub fn fork_sibling() -> io::Result<Option<i32>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork; a single-threaded process may go on as it was in the child.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok((pid != 0).then_some(pid as i32))
}

/// Installs a seccomp filter for this process.
pub fn seccomp(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `fprog` describes `program`, which the kernel copies and does not change.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, std::ptr::from_ref(&fprog)) }).map(drop)
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
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
}

/// Loads an eBPF program that decides about devices of a control group.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let attr = LoadAttr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `attr` is as long as said; the instructions and the license it points to outlive the call.
    owned(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, std::ptr::from_ref(&attr), size_of::<LoadAttr>()) })
}

/// Attaches such a program to a control group, beside those of its parents,
/// which all must agree.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    // Target, program, attach type and flags of `union bpf_attr`.
    let attr = [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: `attr` is as long as said and both descriptors are borrowed for the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attr.as_ptr(), size_of_val(&attr)) }).map(drop)
}

/// Drops one capability from the bounding set.
pub fn drop_bounding(capability: u8) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }.into()).map(drop)
}

/// Raises one capability in the ambient set.
pub fn raise_ambient(capability: u8) -> io::Result<()> {
    let (raise, capability) = (libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, libc::c_ulong::from(capability));
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) }.into()).map(drop)
}

/// Sets effective, permitted and inheritable capabilities, one bit each.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3, which takes two data records.
    check(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) }).map(drop)
}

/// Makes the terminal `slave` the controlling one of this session.
pub fn control_terminal(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Unlocks the slave side of `master` and opens it, without going by its path.
pub fn open_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let locked: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&locked)) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    owned(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// The number of the slave side of `master` in its devpts.
pub fn slave_number(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, std::ptr::from_mut(&mut number)) }.into())?;
    Ok(number)
}

/// Sets the window size of a terminal.
pub fn window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) }.into()).map(drop)
}

/// Becomes another program; returns only on failure.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(path, args, env) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}
