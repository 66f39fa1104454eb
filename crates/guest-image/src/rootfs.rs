//! What is in the initramfs.

use std::{io::Write, path::Path};

use flate2::{Compression, GzBuilder};
use object::{Architecture, Object, ObjectKind};
use osc_agent_protocol::names::GUEST_MODULE_LIST;

use crate::{
    cpio::Archive,
    error::BuildError,
    modules::{Module, Selection},
};

/// Commands that something in the guest starts by path. A debug shell has all
/// others as well: this busybox runs its applets without links.
const LINKS: &[&str] = &["bin/sh", "bin/mount", "bin/umount", "sbin/modprobe", "sbin/mkswap", "sbin/swapon"];

/// Mount points, and places the agent or a container's root expects.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
];

const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hostname", "localhost\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
    // The agent mounts the pod's DNS settings over it, which needs a target.
    ("etc/resolv.conf", ""),
];

/// The parts an initramfs is made of.
pub struct Content<'a> {
    /// The agent binary.
    pub agent: &'a [u8],
    /// The busybox binary.
    pub busybox: &'a [u8],
    /// Kernel release.
    pub release: &'a str,
    /// Modules to carry.
    pub modules: &'a Selection<'a>,
    /// The kernel's `modules.builtin`.
    pub builtin: &'a [u8],
}

/// Reads the agent and sees that it can be the only program of a guest.
pub fn read_agent(path: &Path) -> Result<Vec<u8>, BuildError> {
    let agent = std::fs::read(path).map_err(|source| BuildError::AgentMissing { path: path.to_owned(), source })?;
    let program = object::File::parse(agent.as_slice()).ok().filter(|file| {
        matches!(file.kind(), ObjectKind::Executable | ObjectKind::Dynamic)
            && file.architecture() == Architecture::X86_64
            && file.section_by_name(".interp").is_none()
    });
    match program {
        Some(_) => Ok(agent),
        None => Err(BuildError::AgentNotStatic { path: path.to_owned() }),
    }
}

/// The initramfs.
pub fn archive(content: &Content<'_>) -> Vec<u8> {
    let mut archive = Archive::new();
    for (path, permissions) in DIRECTORIES {
        archive.directory(path, *permissions);
    }
    for (path, text) in FILES {
        archive.text(path, 0o644, *text);
    }
    archive.symlink("var/run", "/run");
    // The kernel opens the first for init, before devtmpfs is mounted.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, content.agent);
    archive.file("bin/busybox", 0o755, content.busybox);
    for link in LINKS {
        archive.symlink(link, "/bin/busybox");
    }
    add_modules(&mut archive, content);
    archive.finish()
}

fn add_modules<'a>(archive: &mut Archive<'a>, content: &Content<'a>) {
    let dir = format!("lib/modules/{}", content.release);
    let mut boot_list = String::new();
    for module in &content.modules.boot {
        archive.file(&format!("{dir}/{}", module.path), 0o644, module.content);
        boot_list.push_str(&format!("/{dir}/{}\n", module.path));
    }
    for module in &content.modules.on_demand {
        archive.text(&format!("{dir}/{}.gz", module.path), 0o644, gzip(module.content));
    }
    archive.text(GUEST_MODULE_LIST.trim_start_matches('/'), 0o644, boot_list);
    archive.text(&format!("{dir}/modules.dep"), 0o644, dependencies(content.modules));
    archive.text(&format!("{dir}/modules.alias"), 0o644, aliases(content.modules));
    archive.file(&format!("{dir}/modules.builtin"), 0o644, content.builtin);
}

/// A quarter of the size, in RAM that every guest has to spend. busybox first
/// hands the file to the kernel as it is, hence the kernel's one complaint
/// about an ELF magic before it loads. Without a time and a name in the header,
/// equal input gives equal bytes.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// All modules with the path they have in the image.
fn listed<'a>(modules: &'a Selection<'a>) -> impl Iterator<Item = (&'a Module<'a>, String)> {
    let boot = modules.boot.iter().map(|module| (module, module.path.to_owned()));
    boot.chain(modules.on_demand.iter().map(|module| (module, format!("{}.gz", module.path))))
}

/// `modules.dep`: each module with all it needs, nearest first, as `modprobe`
/// loads them from the end of the line.
fn dependencies(modules: &Selection<'_>) -> String {
    let mut text = String::new();
    for (module, path) in listed(modules) {
        text.push_str(&path);
        text.push(':');
        let needed = closure(modules, module);
        for (_, path) in needed.iter().rev() {
            text.push(' ');
            text.push_str(path);
        }
        text.push('\n');
    }
    text
}

/// What `module` needs, in load order: the order modules were selected in.
fn closure<'a>(modules: &'a Selection<'a>, module: &Module<'_>) -> Vec<(&'a Module<'a>, String)> {
    let mut wanted = module.depends.clone();
    let mut index = 0;
    while index < wanted.len() {
        let depends = listed(modules).find(|(module, _)| module.name == wanted[index]).map(|(m, _)| m.depends.clone());
        for name in depends.unwrap_or_default() {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        index += 1;
    }
    listed(modules).filter(|(other, _)| other.name != module.name && wanted.contains(&other.name)).collect()
}

fn aliases(modules: &Selection<'_>) -> String {
    let mut text = String::new();
    for (module, _) in listed(modules) {
        for alias in &module.aliases {
            text.push_str(&format!("alias {alias} {}\n", module.name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write as _, process::Command, process::Stdio};

    use super::*;
    use crate::modules::{select, tests::module};

    fn kernel() -> BTreeMap<String, Vec<u8>> {
        [
            ("kernel/virtio.ko", module(&[])),
            ("kernel/virtio_pci.ko", module(&["depends=virtio"])),
            ("kernel/overlay.ko", module(&["alias=fs-overlay", "depends=virtio_pci"])),
        ]
        .into_iter()
        .map(|(path, content)| (path.to_owned(), content))
        .collect()
    }

    fn sample(kernel: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let modules = select(kernel, &["virtio_pci"], &["overlay"], &[]).unwrap();
        archive(&Content { agent: b"agent", busybox: b"busybox", release: "6.1-x", modules: &modules, builtin: b"" })
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        assert!(sample(&kernel()) == sample(&kernel()));
    }

    #[test]
    fn the_system_cpio_unpacks_what_the_agent_needs() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("cpio");
        command.args(["-idm", "--quiet", "--no-absolute-filenames"]).current_dir(dir.path()).stdin(Stdio::piped());
        let mut cpio = command.spawn().expect("cpio runs: `scripts/install-packages` installs it");
        cpio.stdin.take().unwrap().write_all(&sample(&kernel())).unwrap();
        assert!(cpio.wait().unwrap().success());
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("init"), "agent");
        assert_eq!(
            read("lib/modules/boot.list"),
            "/lib/modules/6.1-x/kernel/virtio.ko\n/lib/modules/6.1-x/kernel/virtio_pci.ko\n"
        );
        assert_eq!(
            read("lib/modules/6.1-x/modules.dep"),
            "kernel/virtio.ko:\nkernel/virtio_pci.ko: kernel/virtio.ko\n\
             kernel/overlay.ko.gz: kernel/virtio_pci.ko kernel/virtio.ko\n"
        );
        assert_eq!(read("lib/modules/6.1-x/modules.alias"), "alias fs-overlay overlay\n");
        assert_eq!(std::fs::read_link(dir.path().join("sbin/modprobe")).unwrap(), Path::new("/bin/busybox"));
    }

    #[test]
    fn only_a_static_program_can_be_the_agent() {
        let missing = read_agent(Path::new("/nonexistent/kata-agent"));
        assert!(matches!(missing, Err(BuildError::AgentMissing { .. })));
        // Tests are linked dynamically.
        let dynamic = read_agent(&std::env::current_exe().unwrap());
        assert!(matches!(dynamic, Err(BuildError::AgentNotStatic { .. })));
        assert!(matches!(read_agent(Path::new("/etc/passwd")), Err(BuildError::AgentNotStatic { .. })));
    }
}
