//! Which machines are alike.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    config::Mib,
    file::{FileIdentity, host_boot},
    qemu::{Accelerator, Boot, Cpus, Memory, MemoryBackend, Root, VmSpec, VsockDevice},
};

/// Changes whenever machines built from equal shapes by another version of this
/// program would differ.
const FORMAT: u32 = 1;

/// Everything a machine is made of that is not its sandbox's own. Machines of equal
/// shape can go on from each other's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    format: u32,
    /// Another boot may be another kernel, other microcode, another clock rate.
    host_boot: String,
    /// QEMU, kernel, root and firmware: updates change them in place.
    files: Vec<FileIdentity>,
    binary: PathBuf,
    translation_buffer: u64,
    machine_accelerators: String,
    cpu_features: String,
    cpus: [u32; 2],
    memory: [u64; 2],
    memory_slots: u8,
    kernel: PathBuf,
    initrd: PathBuf,
    command_line: String,
    firmware: Option<PathBuf>,
    bridges: u8,
    entropy: Option<PathBuf>,
    seccomp: String,
}

/// Why a machine has no shape, and so always boots.
#[derive(Debug, thiserror::Error)]
pub enum NoShape {
    /// The boot is short there.
    #[error("it is executed by KVM, where booting is quick")]
    Kvm,
    /// A disk would have to be copied.
    #[error("its root file system is a disk (`image`)")]
    Disk,
    /// Not copyable.
    #[error("its memory is huge pages or allocated ahead")]
    Memory,
    /// The boot is what somebody wants to see.
    #[error("its console is logged (`enable_debug`)")]
    Console,
    /// There is no place for the devices of a sandbox.
    #[error("it has no bridges (`default_bridges`)")]
    Bridges,
    /// Saving its state was never tried.
    #[error("its sockets are the kernel's (vhost-vsock)")]
    Sockets,
    /// A file of the machine is missing.
    #[error("one of its files cannot be looked at")]
    File(#[from] io::Error),
}

impl Shape {
    /// The shape of the machine `spec` describes.
    ///
    /// # Errors
    /// When such machines always boot.
    pub fn of(spec: &VmSpec) -> Result<Self, NoShape> {
        let Accelerator::Tcg { tb_size } = spec.accelerator else { return Err(NoShape::Kvm) };
        let Root::Initrd(initrd) = &spec.boot.root else { return Err(NoShape::Disk) };
        if spec.memory.backend != MemoryBackend::Memfd || spec.memory.prealloc {
            return Err(NoShape::Memory);
        }
        if spec.log_console {
            return Err(NoShape::Console);
        }
        if spec.bridges == 0 {
            return Err(NoShape::Bridges);
        }
        if matches!(spec.vsock, Some(VsockDevice::Kernel { .. })) {
            return Err(NoShape::Sockets);
        }
        let files = [Some(&spec.binary), Some(&spec.boot.kernel), Some(initrd), spec.firmware.as_ref()];
        let files = files.into_iter().flatten().map(|path| FileIdentity::of(path)).collect::<io::Result<_>>()?;
        Ok(Self {
            format: FORMAT,
            host_boot: host_boot()?,
            files,
            binary: spec.binary.clone(),
            translation_buffer: tb_size.0,
            machine_accelerators: spec.machine_accelerators.clone(),
            cpu_features: spec.cpu_features.clone(),
            cpus: [spec.cpus.boot, spec.cpus.max],
            memory: [spec.memory.boot.0, spec.memory.max.0],
            memory_slots: spec.memory.slots,
            kernel: spec.boot.kernel.clone(),
            initrd: initrd.clone(),
            command_line: spec.boot.command_line.clone(),
            firmware: spec.firmware.clone(),
            bridges: spec.bridges,
            entropy: spec.entropy.clone(),
            seccomp: spec.seccomp.clone(),
        })
    }

    /// Whether a machine could have this shape now: host and files are what they were.
    pub fn current(&self) -> bool {
        self.format == FORMAT
            && host_boot().is_ok_and(|boot| boot == self.host_boot)
            && self.files.iter().all(FileIdentity::current)
    }

    /// Name of a template of this shape.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a shape has only text and numbers");
        hex::encode(&Sha256::digest(text)[..16])
    }

    /// Memory of the machine.
    pub fn memory(&self) -> Mib {
        Mib(self.memory[0])
    }

    /// A machine of this shape with its files in `dir` and its memory in the file `memory`.
    pub(super) fn machine(&self, dir: &Path, memory: PathBuf) -> VmSpec {
        VmSpec {
            name: "template".into(),
            dir: dir.to_owned(),
            binary: self.binary.clone(),
            accelerator: Accelerator::Tcg { tb_size: Mib(self.translation_buffer) },
            machine_accelerators: self.machine_accelerators.clone(),
            cpu_features: self.cpu_features.clone(),
            cpus: Cpus { boot: self.cpus[0], max: self.cpus[1] },
            memory: Memory {
                boot: Mib(self.memory[0]),
                max: Mib(self.memory[1]),
                slots: self.memory_slots,
                backend: MemoryBackend::File(memory),
                prealloc: false,
            },
            boot: Boot {
                kernel: self.kernel.clone(),
                root: Root::Initrd(self.initrd.clone()),
                command_line: self.command_line.clone(),
            },
            firmware: self.firmware.clone(),
            vsock: None,
            share: None,
            nics: Vec::new(),
            bridges: self.bridges,
            entropy: self.entropy.clone(),
            seccomp: self.seccomp.clone(),
            netns: None,
            selinux_label: None,
            log_console: false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// A machine that has a shape, of files that exist in `dir`.
    pub fn spec(dir: &Path) -> VmSpec {
        let file = |name: &str| {
            let path = dir.join(name);
            std::fs::write(&path, name).unwrap();
            path
        };
        VmSpec {
            name: "pod".into(),
            dir: "/run/pod".into(),
            binary: file("qemu"),
            accelerator: Accelerator::TCG,
            machine_accelerators: String::new(),
            cpu_features: "pmu=off".into(),
            cpus: Cpus { boot: 1, max: 2 },
            memory: Memory { boot: Mib(4), max: Mib(8), slots: 1, backend: MemoryBackend::Memfd, prealloc: false },
            boot: Boot { kernel: file("kernel"), root: Root::Initrd(file("initrd")), command_line: "quiet".into() },
            firmware: None,
            vsock: None,
            share: None,
            nics: Vec::new(),
            bridges: 1,
            entropy: None,
            seccomp: String::new(),
            netns: None,
            selinux_label: None,
            log_console: false,
        }
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_belongs_to_a_sandbox_does_not_change_the_shape_and_all_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let of = |change: fn(&mut VmSpec)| {
            let mut spec = spec(dir.path());
            change(&mut spec);
            Shape::of(&spec)
        };
        let plain = of(|_| {}).unwrap();
        type Change = fn(&mut VmSpec);
        let own: [Change; 4] = [
            |s| s.name = "other".into(),
            |s| s.dir = "/run/other".into(),
            |s| s.netns = Some("/run/netns/x".into()),
            |s| s.selinux_label = Some("x".into()),
        ];
        for change in own {
            assert_eq!(of(change).unwrap(), plain);
        }
        let shapes: [Change; 9] = [
            |s| s.accelerator = Accelerator::Tcg { tb_size: Mib(64) },
            |s| s.cpu_features.push_str(",x"),
            |s| s.cpus.boot = 2,
            |s| s.cpus.max = 3,
            |s| s.memory.boot = Mib(5),
            |s| s.memory.slots = 2,
            |s| s.boot.command_line.push_str(" agent.debug_console"),
            |s| s.bridges = 2,
            |s| s.seccomp = "on".into(),
        ];
        for (row, change) in shapes.into_iter().enumerate() {
            let shape = of(change).unwrap();
            assert_ne!(shape.digest(), plain.digest(), "row {row}");
        }
        let always_boot: [(Change, &str); 8] = [
            (|s| s.accelerator = Accelerator::Kvm, "KVM"),
            (|s| s.boot.root = Root::Image("/image".into()), "`image`"),
            (|s| s.memory.prealloc = true, "allocated ahead"),
            (|s| s.memory.backend = MemoryBackend::Hugepages("/x".into()), "huge pages"),
            (|s| s.log_console = true, "`enable_debug`"),
            (|s| s.bridges = 0, "`default_bridges`"),
            (|s| s.vsock = Some(VsockDevice::Kernel { fd: null(), cid: 3 }), "vhost-vsock"),
            (|s| s.boot.kernel = "/nowhere".into(), "files"),
        ];
        for (change, reason) in always_boot {
            let error = of(change).unwrap_err().to_string();
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
    }

    #[test]
    fn an_updated_file_is_another_shape_and_a_machine_has_the_shape_it_was_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path());
        let before = Shape::of(&spec).unwrap();
        let mut machine = before.machine(dir.path(), "/memory".into());
        machine.memory.backend = MemoryBackend::Memfd;
        assert_eq!(Shape::of(&machine).unwrap(), before);
        assert!(before.current());
        std::fs::write(&spec.boot.kernel, "another kernel").unwrap();
        assert_ne!(Shape::of(&spec).unwrap(), before);
        assert!(!before.current());
        std::fs::remove_file(&spec.boot.kernel).unwrap();
        assert!(Shape::of(&spec).is_err());
    }
}
