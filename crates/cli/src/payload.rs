//! What nodes need to run sandboxes, packed for the daemons that install it.

use std::path::Path;

use osc_machine_config::payload::{self, Manifest, Part, PayloadError};
use osc_node::engine::Parts;
use osc_runtime::dirs::Dirs;

const VIRTIOFSD: &str = "bin/virtiofsd";
const KERNEL: &str = "guest/vmlinux";
const INITRD: &str = "guest/initrd.img";

/// The parts in a packed payload; QEMU is the machine's.
pub fn parts(dir: &Path, dirs: &Dirs) -> Parts {
    inside(dir, &Parts::installed(dirs))
}

fn inside(dir: &Path, installed: &Parts) -> Parts {
    Parts {
        shim: dir.join(payload::SHIM),
        qemu: installed.qemu.clone(),
        virtiofsd: dir.join(VIRTIOFSD),
        kernel: dir.join(KERNEL),
        initrd: dir.join(INITRD),
    }
}

/// Packs parts into `out`. Nodes that people log in to get `tool`, this program itself, too.
pub fn pack(installed: &Parts, out: &Path, tool: Option<&Path>) -> Result<Manifest, PayloadError> {
    let placed = inside(Path::new(payload::PLACE), installed);
    let failed = |source| PayloadError::Io { action: "write", path: out.with_extension("toml"), source };
    let configuration = out.with_extension("toml");
    if let Some(parent) = out.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(&configuration, placed.configuration()).map_err(failed)?;
    let part = |from: &Path, name: &str, executable| Part {
        from: from.to_owned(),
        name: name.into(),
        executable,
        placed: false,
    };
    let mut parts = vec![
        part(&installed.shim, payload::SHIM, true),
        part(&installed.virtiofsd, VIRTIOFSD, true),
        part(&installed.kernel, KERNEL, false),
        part(&installed.initrd, INITRD, false),
        Part { placed: true, ..part(&configuration, payload::CONFIGURATION, false) },
    ];
    parts.extend(tool.map(|tool| part(tool, "bin/osc", true)));
    payload::pack(out, &parts)
}
