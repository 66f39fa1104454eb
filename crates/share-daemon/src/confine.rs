//! What the process gives up before it hears the first word of the guest.

use std::collections::BTreeSet;

use anyhow::{Context, anyhow, bail, ensure};
use capng::{Action, Set, Type};
use log::warn;
use virtiofsd::{
    limits,
    passthrough::InodeFileHandlesMode,
    sandbox::Sandbox,
    seccomp::{SeccompAction, enable_seccomp},
};
use virtiofsd_vhost::vhost_user::Listener;

use crate::options::Options;

/// Descriptors the daemon needs for itself: one for each piece of guest memory, of which
/// the vhost-user library takes 509, and room for files of its own.
const OWN_DESCRIPTORS: u64 = 509 + 100;
/// With fewer for the guest, hardly any program runs.
const FEW_DESCRIPTORS: u64 = 128;

/// Raises the limit of open files and returns how many of them the guest may use.
pub fn descriptors(wanted: Option<u64>, threads: usize) -> anyhow::Result<u64> {
    let limit = limits::setup_rlimit_nofile(wanted)
        .map_err(|why| anyhow!("cannot set the limit of open files, try another --rlimit-nofile: {why}"))?;
    // A thread opens a file first and counts it then.
    let own = OWN_DESCRIPTORS + threads.max(1) as u64;
    let guest = limit
        .checked_sub(own)
        .with_context(|| format!("the limit of open files is {limit}, at least {own} are needed"))?;
    if guest < FEW_DESCRIPTORS {
        warn!("the limit of open files leaves only {guest} to the guest");
    }
    Ok(guest)
}

/// Where the process is once it is confined.
pub struct Confined {
    /// Knows the root directory and the files of `/proc` it kept open.
    pub sandbox: Sandbox,
    /// What to cut off paths in the list of mounts.
    pub mount_prefix: Option<String>,
    /// The socket, moved along.
    pub listener: Listener,
}

/// Enters the sandbox: namespaces with the shared directory as root, or what was asked
/// for. Returns in the sandboxed process only.
pub fn enter(options: &Options, listener: Listener) -> anyhow::Result<Confined> {
    let shared = options.shared_dir().to_owned();
    let mut sandbox = Sandbox::new(shared, options.sandbox, options.uid_map.clone(), options.gid_map.clone());
    // Names a path outside, so it has to be asked for outside.
    let mount_prefix = sandbox.get_mountinfo_prefix().context("cannot resolve the shared directory")?;
    let listener = sandbox.enter(listener).context("cannot enter the sandbox")?;
    Ok(Confined { sandbox, mount_prefix, listener })
}

/// Refuses system calls a file server has no use for.
pub fn filter(action: SeccompAction, syslog: bool) -> anyhow::Result<()> {
    match action {
        SeccompAction::Allow => Ok(()),
        action => enable_seccomp(action, syslog).context("cannot filter system calls"),
    }
}

/// Drops all capabilities a file server has no use for, for good. A user who is not
/// root has none to drop.
pub fn drop_capabilities(handles: InodeFileHandlesMode, changes: Option<&str>) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let keep = capabilities(handles != InodeFileHandlesMode::Never, changes)?;
    capng::clear(Set::BOTH);
    let names = keep.iter().map(String::as_str).collect();
    capng::updatev(Action::ADD, Type::PERMITTED | Type::EFFECTIVE, names).context("cannot choose capabilities")?;
    capng::apply(Set::BOTH).context("cannot drop capabilities")
}

/// Files of any owner, with any mode, in the name of any user.
const NEEDED: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID"];
/// Opens files by handle.
const FOR_HANDLES: &str = "DAC_READ_SEARCH";

/// The capabilities to keep; `changes` reads `+sys_admin:-chown`.
fn capabilities(by_handle: bool, changes: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let mut keep: BTreeSet<String> = NEEDED.map(str::to_owned).into();
    if by_handle {
        keep.insert(FOR_HANDLES.to_owned());
    }
    for change in changes.into_iter().flat_map(|changes| changes.split(':')) {
        let wrong = || format!("--modcaps: {change:?} is not +CAPABILITY or -CAPABILITY");
        let (name, add) = match (change.strip_prefix('+'), change.strip_prefix('-')) {
            (Some(name), _) => (name.to_uppercase(), true),
            (_, Some(name)) => (name.to_uppercase(), false),
            _ => bail!(wrong()),
        };
        capng::name_to_capability(&name).map_err(|_| anyhow!(wrong()))?;
        if add {
            keep.insert(name);
        } else {
            ensure!(!by_handle || name != FOR_HANDLES, "--modcaps: --inode-file-handles needs {FOR_HANDLES}");
            keep.remove(&name);
        }
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_needed_ones_plus_and_minus_changes() {
        for (by_handle, changes, more, fewer) in [
            (false, None, &[][..], &[][..]),
            (true, None, &["DAC_READ_SEARCH"], &[]),
            (false, Some("+sys_admin"), &["SYS_ADMIN"], &[]),
            (false, Some("+Sys_Admin:-chown"), &["SYS_ADMIN"], &["CHOWN"]),
            (false, Some("-chown:+chown"), &[], &[]),
            (false, Some("+sys_admin:-sys_admin"), &[], &[]),
            (false, Some("-dac_read_search"), &[], &[]),
        ] {
            let mut want: BTreeSet<&str> = NEEDED.into();
            want.extend(more);
            want.retain(|name| !fewer.contains(name));
            let found = capabilities(by_handle, changes).unwrap();
            assert!(found.iter().eq(want.iter()), "{by_handle} {changes:?}: {found:?}");
        }
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        for (by_handle, changes) in
            [(false, ""), (false, "chown"), (false, "+chown:"), (false, "+no_such"), (true, "-dac_read_search")]
        {
            let error = capabilities(by_handle, Some(changes)).unwrap_err().to_string();
            assert!(error.starts_with("--modcaps"), "{changes}: {error}");
        }
    }

    #[test]
    fn what_the_daemon_needs_itself_is_not_the_guests() {
        // 0 leaves the limit of this process alone.
        let left = |threads| descriptors(Some(0), threads).unwrap();
        assert_eq!(left(0), left(1));
        assert_eq!(left(1) - left(64), 63);
    }
}
