//! Who the program runs as and what it may do.

use std::fs;

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use osc_agent_protocol::oci;

use super::{Result, SetupError, during, program::Program};
use crate::container::{seccomp, sys};

const CAP_SYS_ADMIN: u64 = 1 << 21;
/// More capabilities than any kernel has; the loop over them ends at the first unknown.
const CAPABILITY_BITS: u8 = 64;

/// How ready the kernel is to kill the program when memory runs out.
pub fn adjust_oom_score(score: i64) -> Result<()> {
    fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(during("set", "oom_score_adj"))
}

/// Resource limits.
pub fn set_rlimits(limits: &[oci::POSIXRlimit]) -> Result<()> {
    for limit in limits {
        let Some(resource) = resource(&limit.Type) else {
            let reason = "an RLIMIT_ name of getrlimit(2)";
            return Err(SetupError::Invalid { field: "Process.Rlimits.Type", value: limit.Type.clone(), reason });
        };
        setrlimit(resource, limit.Soft, limit.Hard).map_err(during("set", &limit.Type))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// User, groups and capabilities of a program, one bit for each capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    bounding: u64,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
}

impl Identity {
    /// What the specification asks for; capabilities it does not list are lost.
    pub fn new(process: &oci::Process) -> Result<Self> {
        let (user, capabilities) = (&process.User, &process.Capabilities);
        Ok(Self {
            uid: user.UID.into(),
            gid: user.GID.into(),
            groups: user.AdditionalGids.iter().map(|gid| Gid::from_raw(*gid)).collect(),
            bounding: bits(&capabilities.Bounding)?,
            effective: bits(&capabilities.Effective)?,
            permitted: bits(&capabilities.Permitted)?,
            inheritable: bits(&capabilities.Inheritable)?,
            ambient: bits(&capabilities.Ambient)?,
        })
    }

    /// Becomes the user, keeping permitted capabilities for now, and finds the
    /// program with that user's eyes.
    pub fn assume(&self, process: &oci::Process) -> Result<Program> {
        self.drop_bounding()?;
        prctl::set_keepcaps(true).map_err(during("keep", "capabilities"))?;
        setgroups(&self.groups).map_err(during("set", "additional groups"))?;
        setresgid(self.gid, self.gid, self.gid).map_err(during("change group to", self.gid))?;
        // Root may enter directories the user may not, and the other way round on some network file systems.
        let entered = std::env::set_current_dir(&process.Cwd).is_ok();
        setresuid(self.uid, self.uid, self.uid).map_err(during("change user to", self.uid))?;
        if !entered {
            std::env::set_current_dir(&process.Cwd).map_err(during("change directory to", &process.Cwd))?;
        }
        // A directory that is not below our root has no name here.
        std::env::current_dir().map_err(during("find", "the working directory below the root"))?;
        Program::find(process, self.uid.as_raw())
    }

    fn drop_bounding(&self) -> Result<()> {
        for capability in 0..CAPABILITY_BITS {
            if self.bounding & (1 << capability) != 0 {
                continue;
            }
            match sys::drop_bounding(capability) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
                result => result.map_err(during("drop", "capabilities from the bounding set"))?,
            }
        }
        Ok(())
    }

    /// Gives up capabilities for good. A filter needs either a capability we are
    /// about to lose or `no_new_privileges`; in the latter case it is the
    /// caller's to install, last of all.
    pub fn restrict(&self, no_new_privileges: bool, filter: Option<&seccomp::Filter>) -> Result<()> {
        if let Some(filter) = filter.filter(|_| !no_new_privileges) {
            sys::capset(self.effective | CAP_SYS_ADMIN, self.permitted | CAP_SYS_ADMIN, self.inheritable)
                .map_err(during("set", "capabilities"))?;
            filter.install().map_err(during("install", "the seccomp filter"))?;
        }
        sys::capset(self.effective, self.permitted, self.inheritable).map_err(during("set", "capabilities"))?;
        for capability in (0..CAPABILITY_BITS).filter(|bit| self.ambient & (1 << bit) != 0) {
            sys::raise_ambient(capability).map_err(during("set", "ambient capabilities"))?;
        }
        if no_new_privileges {
            prctl::set_no_new_privs().map_err(during("set", "no_new_privs"))?;
        }
        Ok(())
    }
}

/// The bits of a list of names such as `CAP_CHOWN`.
fn bits(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |bits, name| match name.parse::<caps::Capability>() {
        Ok(capability) => Ok(bits | capability.bitmask()),
        Err(_) => {
            let reason = "a capability of capabilities(7)";
            Err(SetupError::Invalid { field: "Process.Capabilities", value: name.clone(), reason })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(bits(&names(&["CAP_CHOWN", "CAP_SYS_ADMIN"])).unwrap(), 1 | CAP_SYS_ADMIN);
        assert_eq!(bits(&names(&["CAP_CHECKPOINT_RESTORE"])).unwrap(), 1 << 40);
        assert!(bits(&names(&["CAP_FLY"])).is_err());
    }

    #[test]
    fn unknown_limits_are_refused() {
        let limit = oci::POSIXRlimit { Type: "RLIMIT_MOON".into(), ..oci::POSIXRlimit::default() };
        assert!(matches!(set_rlimits(&[limit]), Err(SetupError::Invalid { .. })));
    }
}
