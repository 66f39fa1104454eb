//! A node's own view of the machine: a mount namespace in which `/var` is the node's.
//! Kubelets have fixed places there, and clean up in them what they do not know.

use std::{fs, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// What a kubelet wants of the kernel. The machine keeps what it has: a kubelet that
/// finds these values changes none.
const WANTED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Gives this thread, and all that it starts from now on, such a view. It ends with
/// the last of them.
pub fn take(root: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    // Apart from the machine; shared among what lives here, as on a machine.
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)?;
    mount(nothing, "/", nothing, MsFlags::MS_SHARED | MsFlags::MS_REC, nothing)?;
    for (name, value) in WANTED {
        let (real, own) = (Path::new("/proc/sys").join(name), root.join("sysctl").join(name.replace('/', ".")));
        if fs::read_to_string(&real).is_ok_and(|found| found.trim() == value) {
            continue;
        }
        fs::create_dir_all(own.parent().unwrap_or(root)).map_err(errno)?;
        fs::write(&own, format!("{value}\n")).map_err(errno)?;
        mount(Some(&own), &real, nothing, MsFlags::MS_BIND, nothing)?;
    }
    let var = root.join("var");
    for dir in ["lib/kubelet", "log/pods", "log/containers", "tmp", "cache"] {
        fs::create_dir_all(var.join(dir)).map_err(errno)?;
    }
    std::os::unix::fs::symlink("/run", var.join("run")).map_err(errno)?;
    mount(Some(&var), "/var", nothing, MsFlags::MS_BIND, nothing)
}

fn errno(error: std::io::Error) -> nix::Error {
    error.raw_os_error().map_or(nix::Error::EIO, nix::Error::from_raw)
}
