//! Does hardware acceleration work here?
//!
//! Processor flags and `/dev/kvm` lie: there are hosts whose KVM opens, creates
//! machines and then cannot run a stock 64-bit kernel. So `auto` boots the real
//! guest kernel once and remembers how that went, for this kernel, this QEMU and
//! this boot of the host.

mod cache;
mod probe;

use std::path::Path;

use crate::{
    config::{self, GuestRoot, Hypervisor, Mib},
    dirs::Dirs,
    qemu::spec::{Accelerator, Root},
};

/// What executes guest instructions on this host, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The choice.
    pub accelerator: Accelerator,
    /// Why, for people.
    pub reason: String,
    /// Whether an earlier trial was remembered.
    pub cached: bool,
}

/// What a trial found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Finding {
    usable: bool,
    reason: String,
}

/// Decides as configured; `auto` tries KVM with the configured kernel unless a
/// trial is remembered. Several callers at once share one trial.
pub async fn resolve(hypervisor: &Hypervisor, dirs: &Dirs) -> Verdict {
    let software = Accelerator::Tcg { tb_size: hypervisor.tcg_tb_size.unwrap_or(Mib(0)) };
    let configured = |accelerator| Verdict { accelerator, reason: "configured".into(), cached: false };
    match hypervisor.accelerator {
        config::Accelerator::Kvm => configured(Accelerator::Kvm),
        config::Accelerator::Tcg => configured(software),
        config::Accelerator::Auto => {
            let (finding, cached) = prove(hypervisor, dirs).await;
            let accelerator = if finding.usable { Accelerator::Kvm } else { software };
            Verdict { accelerator, reason: finding.reason, cached }
        }
    }
}

async fn prove(hypervisor: &Hypervisor, dirs: &Dirs) -> (Finding, bool) {
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
        return (Finding { usable: false, reason: format!("/dev/kvm cannot be opened: {error}") }, false);
    }
    let root = match &hypervisor.root {
        GuestRoot::Initrd(path) => Root::Initrd(path.clone()),
        GuestRoot::Image { path, .. } => Root::Image(path.clone()),
    };
    let key = match cache::Key::new(&hypervisor.path, &hypervisor.kernel) {
        Ok(key) => key,
        // The start itself reports what is missing, with the cure.
        Err(reason) => return (Finding { usable: false, reason }, false),
    };
    let file = dirs.state().join("accelerator.json");
    if let Some(finding) = cache::read(&file, &key) {
        return (finding, true);
    }
    let lock = cache::lock(&file).await;
    if let Some(finding) = cache::read(&file, &key) {
        return (finding, true);
    }
    let finding = try_once(hypervisor, root, &file).await;
    if !finding.usable {
        tracing::warn!(reason = %finding.reason, "KVM does not work here: sandboxes run slower, in software emulation");
    }
    if let Err(error) = cache::write(&file, &key, &finding) {
        tracing::warn!(path = %file.display(), error = %error, "result of the KVM trial not remembered");
    }
    drop(lock);
    (finding, false)
}

async fn try_once(hypervisor: &Hypervisor, root: Root, beside: &Path) -> Finding {
    match probe::boot(&hypervisor.path, &hypervisor.kernel, root, beside).await {
        Ok(elapsed) => Finding { usable: true, reason: format!("the guest kernel starts under KVM in {elapsed:.1?}") },
        Err(failure) => Finding { usable: false, reason: failure },
    }
}
