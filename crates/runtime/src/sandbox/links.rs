//! The network namespace of a sandbox and what connects it to the guest.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use oci_spec::runtime::LinuxNamespaceType;
use osc_agent_protocol::types::Interface;

use super::{
    Request,
    error::SandboxError,
    hooks::{self, Point},
};
use crate::{
    config::NetworkModel,
    deadline::Deadline,
    dirs::Dirs,
    id::SandboxId,
    network::{Network, Wiring},
    qemu::{Machine, Running},
    spec::PodKind,
};

/// How long wiring the interfaces of a pod may take.
const WIRING: Duration = Duration::from_secs(10);
/// How long hooks may take, once they have run, to make the network they promised.
const LATE_NETWORK: Duration = Duration::from_secs(5);
/// How long plugging one card into the running machine may take.
const PLUGGING: Duration = Duration::from_secs(10);
/// Queue pairs of a card: more than one pays only with several virtual processors
/// and vhost-net.
const QUEUES: u16 = 1;

/// Which network namespace a sandbox runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The one the engine made for the pod.
    Given(PathBuf),
    /// One of its own, made for it.
    Own(PathBuf),
    /// The host's, because the configuration says so.
    Host,
}

impl Place {
    /// What `request` asks for.
    pub(super) fn of(request: &Request) -> Result<Self, SandboxError> {
        if !request.config.runtime.new_netns {
            return Ok(Self::Host);
        }
        let namespaces = request.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let network = namespaces.into_iter().flatten().find(|n| n.typ() == LinuxNamespaceType::Network);
        match network.map(|network| network.path()) {
            Some(Some(path)) => Ok(Self::Given(path.clone())),
            Some(None) => Ok(Self::Own(own_path(&request.dirs, &request.id))),
            None => Err(SandboxError::HostNetwork { id: request.id.clone() }),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Given(path) | Self::Own(path) => Some(path),
            Self::Host => None,
        }
    }

    /// Makes the namespace, should it be an own one, and wires what is in it. An own
    /// one is empty until hooks fill it: nothing is looked for then.
    pub(super) async fn attach(&self, request: &Request) -> Result<Option<Network>, SandboxError> {
        if let Self::Own(path) = self {
            make(path.clone()).await?;
        }
        let hooked = hooks::any(request.spec.hooks().as_ref(), Point::CreateRuntime);
        match self {
            Self::Given(path) => Ok(Some(Network::attach(path, wiring(request), Deadline::after(WIRING)).await?)),
            Self::Own(path) if hooked => {
                Ok(Some(Network::attach(path, wiring(request), Deadline::after(WIRING)).await?))
            }
            Self::Own(_) | Self::Host => Ok(None),
        }
    }
}

fn wiring(request: &Request) -> Wiring {
    let model = request.config.runtime.network;
    Wiring { model, queues: QUEUES, vhost_net: request.config.hypervisor.vhost_net }
}

/// Where the namespace made for `id` is kept.
pub(super) fn own_path(dirs: &Dirs, id: &SandboxId) -> PathBuf {
    dirs.sandbox(id).join("netns")
}

/// Makes a network namespace and keeps it by a mount at `path`, which goes with the
/// mount namespace of this process at the latest.
async fn make(path: PathBuf) -> Result<(), SandboxError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SandboxError::File { action: "make network namespace", path, source }
    };
    let target = path.clone();
    let work = move || -> io::Result<()> {
        File::create(&target)?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        Ok(mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    };
    // A thread of its own: the namespace it enters is nobody else's.
    let (done, outcome) = tokio::sync::oneshot::channel();
    let thread = thread::Builder::new().name("netns".into());
    thread.spawn(move || done.send(work())).map_err(failed(&path))?;
    let outcome = outcome.await.unwrap_or_else(|_| Err(io::Error::other("the thread making it died")));
    outcome.map_err(failed(&path))
}

/// Gives up the namespace kept at `path`. Success when there is none. Blocking.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Not mounted here: its mount namespace is gone.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Waits for the network hooks have promised and plugs it into the running machine.
/// Returns the interfaces for the agent, with the places of their cards.
pub(super) async fn plug_late(
    request: &Request,
    network: &mut Network,
    machine: &mut Machine<Running>,
) -> Result<Option<Vec<Interface>>, SandboxError> {
    let expected = hooks::any(request.spec.hooks().as_ref(), Point::CreateRuntime);
    let none = request.config.runtime.network == NetworkModel::None;
    // A pod's network is made before the pod; only single containers wait for hooks.
    if !expected || none || !network.is_empty() || request.kind != PodKind::Single {
        return Ok(None);
    }
    if !network.rescan(Deadline::after(LATE_NETWORK)).await? {
        return Ok(None);
    }
    let mut interfaces = network.interfaces().to_vec();
    for (nic, interface) in network.nics().into_iter().zip(&mut interfaces) {
        let place = machine.add_nic(nic, Deadline::after(PLUGGING)).await?;
        interface.devicePath = place.to_string();
    }
    Ok(Some(interfaces))
}
