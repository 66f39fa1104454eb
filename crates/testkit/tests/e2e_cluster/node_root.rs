//! The root directory of a node that a machine-config daemon makes its own: programs and
//! devices of this machine, and beside them files of its own. Nothing the daemon does there
//! reaches the machine.
//!
//! Its `systemctl` notes what it was told and has a real engine read its configuration.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::kataconfig::nodes::Node;

/// What it has of the machine, read-only.
const BORROWED: [&str; 7] = ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/share", "proc", "sys"];
/// Devices it has; those the machine lacks, it lacks, too.
const DEVICES: [&str; 6] = ["null", "zero", "random", "urandom", "kvm", "net/tun"];
const SYSTEMCTL: &str = "#!/bin/sh
echo \"$*\" >> /run/systemctl
exec containerd --config /etc/containerd/config.toml config dump > /run/engine
";

/// Such a directory; its mounts go when it is dropped.
pub struct NodeRoot {
    /// Its files.
    pub node: Node,
}

impl NodeRoot {
    pub fn make(root: PathBuf) -> Self {
        fs::create_dir_all(&root).unwrap();
        let node = Self { node: Node { root } };
        let root = &node.node.root;
        // As systemd has it; pods cannot follow the mounts of any other.
        bind(root, root);
        mount(None::<&str>, root, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        BORROWED.iter().for_each(|part| node.borrow(&Path::new("/").join(part), part));
        node.devices();
        for own in ["etc/containerd/conf.d", "opt", "run", "tmp", "usr/local/bin", "var"] {
            fs::create_dir_all(root.join(own)).unwrap();
        }
        for link in ["bin", "lib", "lib64", "sbin"] {
            symlink(Path::new("usr").join(link), root.join(link)).unwrap();
        }
        symlink("/run", root.join("var/run")).unwrap();
        let systemctl = root.join("usr/local/bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let imports = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
        fs::write(root.join("etc/containerd/config.toml"), imports).unwrap();
        node
    }

    /// Shows it a directory of the machine, if there is such a one, and lets nobody change it:
    /// whoever cleans up after a test that was killed shall not remove what is the machine's.
    pub fn borrow(&self, theirs: &Path, name: &str) {
        let place = self.node.root.join(name);
        fs::create_dir_all(&place).unwrap();
        if theirs.exists() {
            bind(theirs, &place);
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &place, None::<&str>, flags, None::<&str>).unwrap();
        }
    }

    fn devices(&self) {
        let place = self.node.root.join("dev");
        fs::create_dir_all(&place).unwrap();
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        for name in DEVICES {
            let (theirs, own) = (Path::new("/dev").join(name), place.join(name));
            if theirs.exists() {
                fs::create_dir_all(own.parent().unwrap()).unwrap();
                fs::write(&own, "").unwrap();
                bind(&theirs, &own);
            }
        }
    }

    /// What the service manager was told so far.
    pub fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.node.root.join("run/systemctl")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether the engine, when it read its configuration last, found the runtime there.
    pub fn engine_knows(&self) -> bool {
        let text = fs::read_to_string(self.node.root.join("run/engine")).unwrap_or_default();
        text.contains("runtimes.kata]")
    }
}

impl Drop for NodeRoot {
    fn drop(&mut self) {
        // With everything below. Not worth a second panic: the end of the cluster would tell.
        let _ = umount2(&self.node.root, MntFlags::MNT_DETACH);
    }
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}
