//! Seccomp profiles as messages of the agent protocol.

use oci_spec::runtime as oci;
use osc_agent_protocol::oci::{self as proto, linux_syscall::Errno_ret};

use super::convert::word;

pub(super) fn seccomp(profile: &oci::LinuxSeccomp) -> proto::LinuxSeccomp {
    proto::LinuxSeccomp {
        DefaultAction: word(&profile.default_action()),
        Architectures: profile.architectures().iter().flatten().map(word).collect(),
        Flags: profile.flags().iter().flatten().map(word).collect(),
        Syscalls: profile.syscalls().iter().flatten().map(syscall).collect(),
        ..proto::LinuxSeccomp::default()
    }
}

fn syscall(rule: &oci::LinuxSyscall) -> proto::LinuxSyscall {
    proto::LinuxSyscall {
        Names: rule.names().clone(),
        Action: word(&rule.action()),
        // Unset is not zero: unset means EPERM.
        errno_ret: rule.errno_ret().map(Errno_ret::Errnoret),
        Args: rule.args().iter().flatten().map(argument).collect(),
        ..proto::LinuxSyscall::default()
    }
}

fn argument(arg: &oci::LinuxSeccompArg) -> proto::LinuxSeccompArg {
    proto::LinuxSeccompArg {
        Index: arg.index() as u64,
        Value: arg.value(),
        ValueTwo: arg.value_two().unwrap_or_default(),
        Op: word(&arg.op()),
        ..proto::LinuxSeccompArg::default()
    }
}
