//! Seccomp filters from the specification.
//!
//! The filter is a classic BPF program over `struct seccomp_data`: it checks the
//! architecture, then compares the call number with each call the specification
//! names. Rules of one call are tried in order and the first that matches
//! decides, as with other runtimes.

mod program;
mod syscalls;

use std::{collections::BTreeMap, io};

use libc::sock_filter;
use osc_agent_protocol::oci;

use self::program::{Compare, Condition, Rule};
use super::{Error, Result, sys};

/// Most instructions the kernel takes (`BPF_MAXINSNS`).
const MAX_LEN: usize = 4096;

/// A filter ready to be installed.
#[derive(Clone)]
pub struct Filter {
    program: Vec<sock_filter>,
    flags: libc::c_ulong,
}

impl Filter {
    /// Compiles `seccomp`. Calls this table does not know are skipped.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown action, operator, flag or architecture.
    pub fn compile(seccomp: &oci::LinuxSeccomp) -> Result<Self> {
        let default = action(&seccomp.DefaultAction, None)?;
        let flags = seccomp.Flags.iter().try_fold(0, |flags, name| Ok::<_, Error>(flags | flag(name)?))?;
        let rules = rules(seccomp)?;
        let native = program::calls(&by_number(&rules, syscalls::X86_64), default);
        let compat = seccomp.Architectures.iter().any(|name| name == "SCMP_ARCH_X86");
        let compat = compat.then(|| program::calls(&by_number(&rules, syscalls::X86), default));
        let program = program::assemble(&native, compat.as_deref());
        if program.len() > MAX_LEN {
            let reason = "rules that fit into 4096 instructions";
            return Err(invalid("Linux.Seccomp", &program.len().to_string(), reason));
        }
        Ok(Self { program, flags })
    }

    /// Installs it for this process and all it will start.
    ///
    /// # Errors
    /// As `seccomp(2)`.
    pub fn install(&self) -> io::Result<()> {
        sys::seccomp(&self.program, self.flags)
    }
}

fn invalid(field: &'static str, value: &str, reason: &'static str) -> Error {
    Error::Invalid { field, value: value.into(), reason }
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    let data = errno.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        other => {
            let reason = "SCMP_ACT_ with KILL, KILL_THREAD, KILL_PROCESS, TRAP, ERRNO, TRACE, LOG or ALLOW";
            return Err(invalid("Linux.Seccomp action", other, reason));
        }
    })
}

fn flag(name: &str) -> Result<libc::c_ulong> {
    Ok(match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        other => {
            return Err(invalid("Linux.Seccomp.Flags", other, "SECCOMP_FILTER_FLAG_ with TSYNC, LOG or SPEC_ALLOW"));
        }
    })
}

/// The rules of each entry with the calls it names.
fn rules(seccomp: &oci::LinuxSeccomp) -> Result<Vec<(&[String], Vec<Rule>)>> {
    let rules = |call: &oci::LinuxSyscall| {
        let action = action(&call.Action, call.has_errnoret().then(|| call.errnoret()))?;
        let conditions = call.Args.iter().map(condition).collect::<Result<Vec<_>>>()?;
        // Two conditions on one argument are alternatives, everything else must hold together.
        let repeated = (1..conditions.len()).any(|i| conditions[..i].iter().any(|c| c.arg == conditions[i].arg));
        Ok(if repeated {
            conditions.into_iter().map(|condition| Rule { conditions: vec![condition], action }).collect()
        } else {
            vec![Rule { conditions, action }]
        })
    };
    seccomp.Syscalls.iter().map(|call| Ok((call.Names.as_slice(), rules(call)?))).collect()
}

fn condition(arg: &oci::LinuxSeccompArg) -> Result<Condition> {
    let number = u32::try_from(arg.Index).ok().filter(|index| *index < 6);
    let number = number.ok_or_else(|| invalid("Linux.Seccomp arg index", &arg.Index.to_string(), "0 to 5"))?;
    let compare = match arg.Op.as_str() {
        "SCMP_CMP_NE" => Compare::NotEqual,
        "SCMP_CMP_LT" => Compare::Less,
        "SCMP_CMP_LE" => Compare::LessOrEqual,
        "SCMP_CMP_EQ" => Compare::Equal,
        "SCMP_CMP_GE" => Compare::GreaterOrEqual,
        "SCMP_CMP_GT" => Compare::Greater,
        // Here the first value is the mask and the second what must come out.
        "SCMP_CMP_MASKED_EQ" => {
            let compare = Compare::MaskedEqual { mask: arg.Value };
            return Ok(Condition { arg: number, compare, value: arg.ValueTwo });
        }
        other => return Err(invalid("Linux.Seccomp op", other, "SCMP_CMP_ with NE, LT, LE, EQ, GE, GT or MASKED_EQ")),
    };
    Ok(Condition { arg: number, compare, value: arg.Value })
}

/// All rules of each call, in the order given, by its number in `table`.
fn by_number<'a>(rules: &'a [(&[String], Vec<Rule>)], table: syscalls::Runs) -> BTreeMap<u32, Vec<&'a Rule>> {
    let numbers = syscalls::numbers(table);
    let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (names, rules) in rules {
        for number in names.iter().filter_map(|name| numbers.get(name.as_str())) {
            out.entry(*number).or_default().extend(rules);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(index: u64, op: &str, value: u64, value_two: u64) -> oci::LinuxSeccompArg {
        oci::LinuxSeccompArg {
            Index: index,
            Op: op.into(),
            Value: value,
            ValueTwo: value_two,
            ..oci::LinuxSeccompArg::default()
        }
    }

    fn call(name: &str, action: &str, args: Vec<oci::LinuxSeccompArg>) -> oci::LinuxSyscall {
        oci::LinuxSyscall {
            Names: vec![name.into()],
            Action: action.into(),
            Args: args,
            ..oci::LinuxSyscall::default()
        }
    }

    fn profile(default: &str, calls: Vec<oci::LinuxSyscall>) -> oci::LinuxSeccomp {
        oci::LinuxSeccomp {
            DefaultAction: default.into(),
            Architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into()],
            Syscalls: calls,
            ..oci::LinuxSeccomp::default()
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    fn verdict(filter: &Filter, arch: u32, number: i64, args: [u64; 6]) -> u32 {
        program::interpret(&filter.program, arch, number as u32, args)
    }

    #[test]
    fn calls_are_told_apart_by_name_and_architecture() {
        let profile = profile(
            "SCMP_ACT_ERRNO",
            vec![call("read", "SCMP_ACT_ALLOW", vec![]), call("no_such_call", "SCMP_ACT_ALLOW", vec![])],
        );
        let filter = Filter::compile(&profile).unwrap();
        for (arch, number, want) in [
            (program::ARCH_X86_64, libc::SYS_read, ALLOW),
            (program::ARCH_X86_64, libc::SYS_write, EPERM),
            (program::ARCH_X86, 3, ALLOW),
            (program::ARCH_X86, 0, EPERM),
            (0x1234, 0, libc::SECCOMP_RET_KILL_PROCESS),
            (program::ARCH_X86_64, 0x4000_0000, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        ] {
            assert_eq!(verdict(&filter, arch, number, [0; 6]), want, "{arch:x} {number}");
        }
    }

    #[test]
    fn conditions_compare_all_64_bits() {
        const BIG: u64 = 0x2_0000_0005;
        let cases = [
            ("SCMP_CMP_EQ", [(BIG, true), (5, false), (BIG + 1, false)]),
            ("SCMP_CMP_NE", [(BIG, false), (5, true), (BIG + 1, true)]),
            ("SCMP_CMP_LT", [(BIG, false), (6, true), (BIG - 1, true)]),
            ("SCMP_CMP_LE", [(BIG, true), (6, true), (BIG + 1, false)]),
            ("SCMP_CMP_GT", [(BIG, false), (6, false), (0x3_0000_0000, true)]),
            ("SCMP_CMP_GE", [(BIG, true), (6, false), (0x3_0000_0000, true)]),
        ];
        for (op, values) in cases {
            let profile = profile("SCMP_ACT_ERRNO", vec![call("ioctl", "SCMP_ACT_ALLOW", vec![arg(1, op, BIG, 0)])]);
            let filter = Filter::compile(&profile).unwrap();
            for (value, allowed) in values {
                let got = verdict(&filter, program::ARCH_X86_64, libc::SYS_ioctl, [0, value, 0, 0, 0, 0]);
                assert_eq!(got == ALLOW, allowed, "{op} {value:x}");
            }
        }
    }

    #[test]
    fn masks_look_at_some_bits_only() {
        let mask = arg(0, "SCMP_CMP_MASKED_EQ", 0x7c02_0000, 0);
        let profile = profile("SCMP_ACT_ERRNO", vec![call("clone", "SCMP_ACT_ALLOW", vec![mask])]);
        let filter = Filter::compile(&profile).unwrap();
        for (flags, want) in [(libc::CLONE_VM as u64, ALLOW), (libc::CLONE_NEWUSER as u64, EPERM)] {
            assert_eq!(verdict(&filter, program::ARCH_X86_64, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), want);
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let mut nosys = call("clone", "SCMP_ACT_ERRNO", vec![]);
        nosys.set_errnoret(libc::ENOSYS as u32);
        let both = vec![arg(0, "SCMP_CMP_EQ", 1, 0), arg(0, "SCMP_CMP_EQ", 2, 0)];
        let profile = profile("SCMP_ACT_KILL", vec![call("clone", "SCMP_ACT_ALLOW", both), nosys]);
        let filter = Filter::compile(&profile).unwrap();
        let nosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        for (flags, want) in [(1, ALLOW), (2, ALLOW), (3, nosys)] {
            let got = verdict(&filter, program::ARCH_X86_64, libc::SYS_clone, [flags, 0, 0, 0, 0, 0]);
            assert_eq!(got, want, "{flags}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            profile("SCMP_ACT_DANCE", vec![]),
            profile("SCMP_ACT_ALLOW", vec![call("read", "SCMP_ACT_NOTIFY", vec![])]),
            profile("SCMP_ACT_ALLOW", vec![call("read", "SCMP_ACT_LOG", vec![arg(6, "SCMP_CMP_EQ", 0, 0)])]),
            profile("SCMP_ACT_ALLOW", vec![call("read", "SCMP_ACT_LOG", vec![arg(0, "SCMP_CMP_SO", 0, 0)])]),
        ];
        for profile in bad {
            assert!(Filter::compile(&profile).is_err(), "{profile:?}");
        }
    }
}
