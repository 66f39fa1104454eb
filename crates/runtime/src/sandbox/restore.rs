//! A sandbox that goes on from a template.
//!
//! Its machine is the template's with devices of its own ([`crate::qemu::restore`]).
//! Nothing of the pod runs in it before it has randomness of its own and the time.

use std::{
    fs::File,
    io::{self, Read},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use osc_agent_protocol::{
    agent::{ReseedRandomDevRequest, SetGuestDateTimeRequest},
    kind::chain,
};
use tokio::task::spawn_blocking;

use super::{Request, Shared, agent::Agent, boot::blocking, error::SandboxError, held::Held};
use crate::{
    deadline::Deadline,
    qemu::{self, Machine, Spawned, VmSpec},
    template::{Look, NoShape, Order, Shape, Store, Template},
};

/// How long the agent of a restored machine may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// How long copying its memory may take: a disk slower than this is no gain.
const COPY: Duration = Duration::from_secs(10);
/// Bytes of randomness given to a restored guest: twice the state of its generator.
const SEED: usize = 64;

/// The template for a machine, or in `held` the order to make one.
pub(super) async fn choose(shared: &Shared, spec: &VmSpec, held: &mut Held) -> Option<Template> {
    let request = &shared.request;
    let store = Store::new(&request.config.hypervisor.templates.dir);
    let shape = match Shape::of(spec) {
        Ok(shape) => shape,
        Err(NoShape::File(error)) => {
            // The start itself says which file is missing, with the cure.
            tracing::debug!(sandbox.id = %request.id, error = %error, "machine without a shape");
            return None;
        }
        Err(reason) => {
            tracing::info!(sandbox.id = %request.id, reason = %reason, "templates do not apply, the machine boots");
            return None;
        }
    };
    let swept = store.clone();
    spawn_blocking(move || sweep(&swept));
    let (looked_at, wanted) = (store.clone(), shape.clone());
    let look = spawn_blocking(move || looked_at.look(&wanted, SystemTime::now()));
    match look.await.unwrap_or(Look::None) {
        Look::Ready(template) => return Some(*template),
        Look::Wanted => held.order = held.groups.home().map(|home| Order::new(&store, shape, home.clone())),
        Look::None => {}
    }
    None
}

/// Removes what a killed maker of templates left.
fn sweep(store: &Store) {
    if let Err(error) = store.sweep_idle() {
        tracing::warn!(path = %store.dir().display(), error = %error, "leftovers of a template not removed");
    }
}

/// Gives up the template of `shape`, which led to `error`.
pub(super) async fn reject(shared: &Shared, shape: Shape, error: &SandboxError) {
    let store = Store::new(&shared.request.config.hypervisor.templates.dir);
    let reason = chain(error);
    let done = spawn_blocking(move || store.reject(&shape, &reason));
    // Whatever goes wrong with it is logged there.
    let _ = done.await;
}

/// Starts the machine of `spec` as a copy of `template`.
pub(super) async fn machine(
    request: &Request,
    spec: VmSpec,
    template: Template,
) -> Result<Machine<Spawned>, SandboxError> {
    let failed = |source| {
        let path = request.config.hypervisor.templates.dir.clone();
        SandboxError::File { action: "copy a template of", path, source }
    };
    let copied = Deadline::after(COPY).run(spawn_blocking(|| template.saved())).await;
    let copied = copied.map_err(|elapsed| failed(io::Error::new(io::ErrorKind::TimedOut, elapsed)))?;
    let saved = copied.map_err(io::Error::other).flatten().map_err(failed)?;
    Ok(qemu::restore(spec, saved, |_| Ok(())).await?)
}

/// Gives a restored guest what it must not share with others of its template.
pub(super) async fn refresh(agent: &Agent, request: &Request) -> Result<(), SandboxError> {
    let source = request.config.hypervisor.entropy_source.clone();
    let seed = blocking(move || {
        let mut seed = vec![0; SEED];
        let read = File::open(&source).and_then(|mut file| file.read_exact(&mut seed));
        read.map_err(|error| SandboxError::File { action: "read randomness from", path: source, source: error })?;
        Ok(seed)
    });
    let seed = ReseedRandomDevRequest { data: seed.await?, ..Default::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = SetGuestDateTimeRequest {
        Sec: now.as_secs().cast_signed(),
        Usec: i64::from(now.subsec_micros()),
        ..Default::default()
    };
    tokio::try_join!(agent.reseed_random_dev(seed), agent.set_guest_date_time(time))?;
    Ok(())
}
