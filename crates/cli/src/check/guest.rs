//! The guest image.

use osc_agent_protocol::kind::chain;
use osc_guest_image::Manifest;
use osc_runtime::config::{Config, GuestRoot};

use super::finding::Finding;

/// Kernel and root file system the configuration names. Beside a kernel of
/// ours lies a manifest to verify; for another kernel, files must do.
pub fn image(config: &Config) -> Finding {
    let name = "guest image";
    let hypervisor = &config.hypervisor;
    let root = match &hypervisor.root {
        GuestRoot::Initrd(path) | GuestRoot::Image { path, .. } => path,
    };
    if let Some(absent) = [&hypervisor.kernel, root].into_iter().find(|path| !path.is_file()) {
        return Finding::missing(name, format!("no file {}", absent.display()), "run `osc guest build`");
    }
    let Some(dir) = hypervisor.kernel.parent().filter(|dir| dir.join(osc_guest_image::MANIFEST).exists()) else {
        return Finding::ok(name, format!("{} and {}, of unknown origin", hypervisor.kernel.display(), root.display()));
    };
    match Manifest::read(dir).and_then(|manifest| manifest.verify(dir).map(|()| manifest)) {
        Ok(manifest) => Finding::ok(name, format!("kernel {} in {}", manifest.kernel.release, dir.display())),
        Err(error) => Finding::missing(name, chain(&error), "run `osc guest build`"),
    }
}
