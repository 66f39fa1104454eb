//! `delete`: what is left of a container when its shim is gone.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use containerd_shim_protos::{
    api::DeleteResponse,
    protobuf::{Message, MessageField},
};
use osc_agent_protocol::kind::chain;
use osc_runtime::{
    deadline::Deadline,
    id::{ContainerId, SandboxId},
    sandbox::{cleanup, kill_recorded_shim},
    spec::{self, PodKind},
};

use super::{Surroundings, address::Address};
use crate::{args::Args, events::timestamp, service::rootfs};

/// How long everything together may take; engines wait about ten seconds.
const LIMIT: Duration = Duration::from_secs(8);
/// What a container whose shim died counts as: killed.
const EXIT_STATUS: u32 = 137;

/// Removes all traces of container `args.id`, and of its sandbox when it was made
/// for it. Returns the answer for the engine, encoded.
///
/// # Errors
/// When the id is not usable; whatever cannot be removed is logged on standard
/// error and tried again by the next call.
pub fn delete(args: &Args, around: &Surroundings) -> Result<Vec<u8>> {
    let id = ContainerId::new(args.id.as_str())?;
    let bundle = args.bundle.as_deref().unwrap_or(&around.bundle);
    if let Some(sandbox) = owned_sandbox(&id, bundle) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let by = Deadline::after(LIMIT);
        runtime.block_on(async {
            // Still there, it would go on making what is being removed.
            if let Err(error) = kill_recorded_shim(&around.dirs, &sandbox, by).await {
                eprintln!("shim of {sandbox} not stopped: {}", chain(&error));
            }
            for failure in cleanup(&around.dirs, &sandbox, by).await {
                eprintln!("{}", chain(&failure));
            }
        });
        let address = Address::of(&args.address, &args.namespace, sandbox.as_str());
        address.remove().with_context(|| format!("cannot remove {}", address.url()))?;
    }
    if let Err(error) = rootfs::unmount_all(&bundle.join("rootfs")) {
        eprintln!("root file system of {id} not unmounted: {}", chain(&error));
    }
    let answer = DeleteResponse {
        exit_status: EXIT_STATUS,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..Default::default()
    };
    answer.write_to_bytes().context("cannot encode the answer")
}

/// The sandbox made for container `id`; `None` for one that lives in the sandbox of
/// another. When the bundle is damaged, the sandbox of that name, if any, is its.
fn owned_sandbox(id: &ContainerId, bundle: &Path) -> Option<SandboxId> {
    let spec = spec::load(bundle).ok();
    let annotations = spec.as_ref().and_then(|spec| spec.annotations().clone()).unwrap_or_default();
    match PodKind::classify(&annotations) {
        Ok(PodKind::Container { .. }) => None,
        _ => SandboxId::new(id.as_str()).ok(),
    }
}
