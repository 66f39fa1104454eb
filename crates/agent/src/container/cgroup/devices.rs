//! Device rules of a control group.
//!
//! The unified hierarchy has no device controller: a small eBPF program of type
//! `BPF_PROG_TYPE_CGROUP_DEVICE` is asked each time a process of the group opens
//! or makes a device node (`struct bpf_cgroup_dev_ctx`, linux/bpf.h).
//!
//! A specification without rules allows everything: devices of the guest are not
//! those of the host, and runtimes leave the rules out for that reason.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use osc_agent_protocol::oci;

use super::failed;
use crate::container::{Error, Result, sys};

/// What every container may use, whatever the rules say: type, major, minor, access.
const ALWAYS: [(&str, i64, i64, &str); 11] = [
    ("c", ANY, ANY, "m"),
    ("b", ANY, ANY, "m"),
    ("c", 1, 3, "rwm"),     // null
    ("c", 1, 5, "rwm"),     // zero
    ("c", 1, 7, "rwm"),     // full
    ("c", 1, 8, "rwm"),     // random
    ("c", 1, 9, "rwm"),     // urandom
    ("c", 5, 0, "rwm"),     // tty
    ("c", 5, 1, "rwm"),     // console
    ("c", 5, 2, "rwm"),     // ptmx
    ("c", 136, ANY, "rwm"), // pseudo terminals
];

/// Any number; the protocol has no other way to leave one out.
const ANY: i64 = -1;

/// Enforces the rules of `resources`, if it has any, on the control group `dir`.
///
/// # Errors
/// [`Error::Invalid`] for a rule that makes no sense, [`Error::Cgroup`] when the
/// kernel cannot enforce them: running without would give more than was asked.
pub fn restrict(dir: &Path, resources: &oci::LinuxResources) -> Result<()> {
    if resources.Devices.is_empty() {
        return Ok(());
    }
    let program = program(&rules(&resources.Devices)?);
    let attached = || -> io::Result<()> {
        let loaded = sys::load_device_program(&program)?;
        sys::attach_device_program(File::open(dir)?.as_fd(), loaded.as_fd())
    };
    attached().map_err(|source| failed("restrict devices of", dir, source))
}

/// One rule, ready to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `BPF_DEVCG_DEV_BLOCK` 1, `BPF_DEVCG_DEV_CHAR` 2, `None` both.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    /// `BPF_DEVCG_ACC_MKNOD` 1, `_READ` 2, `_WRITE` 4.
    access: i32,
}

impl Rule {
    fn new(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> Result<Self> {
        let kind = match kind {
            "b" => Some(1),
            "c" => Some(2),
            "a" | "" => None,
            other => return Err(invalid(other, "type a, b or c")),
        };
        let bit = |letter| match letter {
            'm' => Ok(1),
            'r' => Ok(2),
            'w' => Ok(4),
            _ => Err(invalid(access, "access of r, w and m")),
        };
        let access = access.chars().try_fold(0, |bits, letter| Ok::<_, Error>(bits | bit(letter)?))?;
        let number = |n| i32::try_from(n).ok().filter(|n| *n >= 0);
        // A rule for all kinds is one for all devices.
        let (major, minor) = if kind.is_some() { (number(major), number(minor)) } else { (None, None) };
        Ok(Self { allow, kind, major, minor, access })
    }
}

fn invalid(value: &str, reason: &'static str) -> Error {
    Error::Invalid { field: "Linux.Resources.Devices", value: value.into(), reason }
}

fn rules(listed: &[oci::LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let listed = listed.iter().map(|rule| {
        let access = if rule.Access.is_empty() { "rwm" } else { &rule.Access };
        Rule::new(rule.Allow, &rule.Type, rule.Major, rule.Minor, access)
    });
    let always = ALWAYS.into_iter().map(|(kind, major, minor, access)| Rule::new(true, kind, major, minor, access));
    listed.chain(always).collect()
}

/// Registers: the result, the context, and what is read from it.
const R0: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Operations (`code` of `struct bpf_insn`).
mod op {
    pub const LOAD_WORD: u8 = 0x61;
    pub const MOVE: u8 = 0xb7;
    pub const MOVE_REGISTER: u8 = 0xbf;
    pub const AND: u8 = 0x57;
    pub const SHIFT_RIGHT: u8 = 0x77;
    pub const JUMP_IF_EQUAL: u8 = 0x15;
    pub const JUMP_UNLESS_EQUAL: u8 = 0x55;
    pub const EXIT: u8 = 0x95;
}

/// `struct bpf_insn`: code, registers, offset, immediate value.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_le_bytes([code, to | from << 4, low, high, a, b, c, d])
}

/// The program: the last rule that matches decides, and without one the answer
/// is no.
fn program(rules: &[Rule]) -> Vec<u64> {
    // The first word holds the access in its upper half and the kind in its lower.
    let mut out = vec![
        instruction(op::LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(op::MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(op::AND, KIND, 0, 0, 0xffff),
        instruction(op::SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(op::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(op::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        out.extend(rule_steps(rule));
    }
    out.extend([instruction(op::MOVE, R0, 0, 0, 0), instruction(op::EXIT, 0, 0, 0, 0)]);
    out
}

fn rule_steps(rule: &Rule) -> Vec<u64> {
    // Allowed is what asks for no more than the rule has, denied what asks for any of it.
    let (mask, code) =
        if rule.allow { (!rule.access, op::JUMP_UNLESS_EQUAL) } else { (rule.access, op::JUMP_IF_EQUAL) };
    let mut steps =
        vec![(op::MOVE_REGISTER, SCRATCH, ACCESS, 0), (op::AND, SCRATCH, 0, mask & 7), (code, SCRATCH, 0, 0)];
    for (register, wanted) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        steps.extend(wanted.map(|value| (op::JUMP_UNLESS_EQUAL, register, 0, value)));
    }
    steps.extend([(op::MOVE, R0, 0, i32::from(rule.allow)), (op::EXIT, 0, 0, 0)]);
    let len = steps.len();
    let steps = steps.into_iter().enumerate().map(|(at, (code, to, from, value))| {
        // A comparison that fails goes on behind this rule; a rule is at most eight steps long.
        let jumps = matches!(code, op::JUMP_IF_EQUAL | op::JUMP_UNLESS_EQUAL);
        instruction(code, to, from, if jumps { (len - at - 1) as i16 } else { 0 }, value)
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> oci::LinuxDeviceCgroup {
        oci::LinuxDeviceCgroup {
            Allow: allow,
            Type: kind.into(),
            Major: major,
            Minor: minor,
            Access: access.into(),
            ..oci::LinuxDeviceCgroup::default()
        }
    }

    /// Runs a program as the kernel would.
    fn interpret(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u64; 10], 0);
        loop {
            let [code, both, low, high, value @ ..] = program[at].to_le_bytes();
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = i16::from_le_bytes([low, high]) as usize;
            let value = i32::from_le_bytes(value) as u64;
            at += 1;
            match code {
                op::LOAD_WORD => registers[to] = context[offset / 4].into(),
                op::MOVE => registers[to] = value,
                op::MOVE_REGISTER => registers[to] = registers[from],
                op::AND => registers[to] &= value,
                op::SHIFT_RIGHT => registers[to] >>= value,
                op::JUMP_IF_EQUAL if registers[to] == value => at += offset,
                op::JUMP_UNLESS_EQUAL if registers[to] != value => at += offset,
                op::JUMP_IF_EQUAL | op::JUMP_UNLESS_EQUAL => {}
                op::EXIT => return registers[0],
                other => panic!("unknown instruction {other:x}"),
            }
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    #[test]
    fn the_last_matching_rule_decides() {
        let listed = [
            rule(false, "a", ANY, ANY, "rwm"),
            rule(true, "b", 8, ANY, "rw"),
            rule(false, "b", 8, 1, "w"),
            rule(true, "c", 10, 229, ""),
        ];
        let program = program(&rules(&listed).unwrap());
        for (kind, access, major, minor, want) in [
            (BLOCK, READ, 8, 0, 1),
            (BLOCK, READ | WRITE, 8, 0, 1),
            (BLOCK, READ, 8, 1, 1),
            (BLOCK, READ | WRITE, 8, 1, 0),
            (BLOCK, READ, 9, 0, 0),
            (CHAR, READ, 8, 0, 0),
            (CHAR, READ | WRITE, 10, 229, 1),
            (CHAR, READ, 10, 200, 0),
            (CHAR, READ | WRITE, 1, 3, 1),
            (CHAR, WRITE, 136, 7, 1),
            (BLOCK, MKNOD, 252, 3, 1),
            (BLOCK, MKNOD | READ, 252, 3, 0),
        ] {
            assert_eq!(interpret(&program, kind, access, major, minor), want, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn a_rule_for_everything_allows_everything() {
        let program = program(&rules(&[rule(true, "a", 1, 1, "rwm")]).unwrap());
        assert_eq!(interpret(&program, BLOCK, READ | WRITE | MKNOD, 252, 3), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for listed in [rule(true, "x", 1, 1, "r"), rule(true, "c", 1, 1, "rx")] {
            assert!(rules(std::slice::from_ref(&listed)).is_err(), "{listed:?}");
        }
    }
}
