//! What executes guest instructions: proven by a trial, not by processor flags.

use std::fs;

use osc_runtime::{
    config::{self, Config},
    dirs::Dirs,
    qemu::{
        Accelerator,
        accel::{self, Verdict},
    },
};

use super::finding::Finding;

const NAME: &str = "acceleration";
const CURE: &str = "enable virtualization in the firmware, or nested virtualization in the host of this machine, and \
                    see that a stock kernel boots under KVM; without it sandboxes are emulated, several times slower";

/// The accelerator sandboxes would get now. May boot the guest kernel once; the
/// runtime remembers the outcome and shares it.
pub async fn accelerator(config: &Config, dirs: &Dirs) -> Finding {
    let verdict = accel::resolve(&config.hypervisor, dirs).await;
    let insists = config.hypervisor.accelerator == config::Accelerator::Kvm;
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    judge(&verdict, insists.then_some(device.map(drop)))
}

/// `insisted` is what opening KVM gave where the configuration demands it.
fn judge(verdict: &Verdict, insisted: Option<std::io::Result<()>>) -> Finding {
    let remembered = if verdict.cached { ", as an earlier trial showed" } else { "" };
    match (verdict.accelerator, insisted) {
        (Accelerator::Kvm, Some(Err(error))) => {
            let cure = "make /dev/kvm usable, or set `accelerator` in section [hypervisor.qemu] to \"auto\"";
            Finding::missing(NAME, format!("configured to be KVM, but /dev/kvm: {error}"), cure)
        }
        (Accelerator::Kvm, _) => Finding::ok(NAME, format!("KVM: {}{remembered}", verdict.reason)),
        (Accelerator::Tcg { .. }, _) => {
            Finding::warning(NAME, format!("software emulation: {}{remembered}", verdict.reason), CURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;
    use crate::check::finding;

    #[test]
    fn emulation_is_slow_but_only_missing_kvm_that_is_demanded_is_a_failure() {
        let denied = || Some(Err(Error::from(ErrorKind::PermissionDenied)));
        for (accelerator, insisted, want) in [
            (Accelerator::Kvm, None, finding::Verdict::Ok),
            (Accelerator::Kvm, Some(Ok(())), finding::Verdict::Ok),
            (Accelerator::Kvm, denied(), finding::Verdict::Missing),
            (Accelerator::TCG, None, finding::Verdict::Warning),
        ] {
            let row = format!("{accelerator:?} {insisted:?}");
            let verdict = Verdict { accelerator, reason: "why".into(), cached: true };
            let finding = judge(&verdict, insisted);
            assert_eq!(finding.verdict, want, "{row}");
        }
    }
}
