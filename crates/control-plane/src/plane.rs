//! Opening, serving and closing a control plane.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use osc_access::{
    Authenticator, Authorizer, Identity,
    ca::{Authority, CaError, Leaf},
    kubeconfig::{Credential, Kubeconfig},
    token::{Signer, TokenError},
};
use osc_api::status::Status;
use osc_store::{OpenError, Store};
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    admission::Chain,
    api::Api,
    bootstrap,
    config::Config,
    crds,
    handlers::Outlines,
    load::Load,
    metrics::Metrics,
    quota,
    reader::Reader,
    resources::Catalog,
    rights,
    server::{self, InProcess},
    streams::Nodes,
};

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("the store of the control plane cannot be opened")]
    Store(#[from] OpenError),
    /// Certificates cannot be had.
    #[error("the certificates of the control plane cannot be had")]
    Certificates(#[from] CaError),
    /// The key that signs tokens cannot be had.
    #[error("the key for service account tokens cannot be had")]
    Tokens(#[from] TokenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: stop who listens there, or choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An object every cluster has could not be made.
    #[error("cannot {action}: {} (is the store of a newer program?)", status.message)]
    Bootstrap {
        /// What was tried.
        action: &'static str,
        /// The refusal.
        status: Box<Status>,
    },
}

/// A running control plane: the API server with its store.
///
/// Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct ControlPlane {
    api: Arc<Api>,
    authority: Arc<Authority>,
    address: SocketAddr,
    server: Arc<TaskTracker>,
}

impl ControlPlane {
    /// Opens the store, makes or loads keys and certificates, creates what every
    /// cluster has, and begins to serve.
    ///
    /// # Errors
    /// When one of these fails; nothing is left running.
    pub async fn open(mut config: Config) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        config.listen = listener.local_addr().map_err(listen)?;
        let address = local(config.listen);
        let now = OffsetDateTime::now_utc();
        let pki = config.directory.join("pki");
        let authority = Arc::new(Authority::open(&pki, now)?);
        let tls = Arc::new(authority.server_config(config.all_names())?);
        let signer = Signer::open(&pki.join("service-accounts.key"), "https://kubernetes.default.svc.cluster.local")?;
        let (directory, options) = (config.directory.join("store"), config.store.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory, options)).await;
        // The task is neither cancelled nor does it panic.
        let store = opened.expect("opening the store does not panic")?;
        let limits = config.limits;
        let api = Arc::new(api(config, store, signer));
        if let Err(error) = Self::prepare(&api).await {
            api.stop.cancel();
            api.tasks.close();
            api.tasks.wait().await;
            api.store.close().await;
            return Err(error);
        }
        let server = Arc::new(TaskTracker::new());
        server.spawn(server::run(Arc::clone(&api), listener, tls, limits, api.stop.clone()));
        info!(%address, "control plane serves");
        Ok(Self { api, authority, address, server })
    }

    /// Everything that must be true before the first request.
    async fn prepare(api: &Arc<Api>) -> Result<(), StartError> {
        let failed = |action| move |status| StartError::Bootstrap { action, status: Box::new(status) };
        let roles = rights::start(&api.store, &api.authorizer, &api.stop, &api.tasks).await;
        roles.map_err(failed("read the roles"))?;
        let (ready, served) = oneshot::channel();
        api.tasks.spawn(crds::run(Arc::clone(api), ready));
        // Told or dropped: either way the definitions were looked at.
        let _ = served.await;
        bootstrap::run(api).await.map_err(failed("create the objects every cluster has"))?;
        api.tasks.spawn(quota::run(Arc::clone(api)));
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Signs certificates for clients.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Where node agents make themselves known.
    pub fn nodes(&self) -> &Nodes {
        &self.api.nodes
    }

    /// The server for a client in this process that acts as `identity`.
    pub fn service(&self, identity: Identity) -> InProcess {
        InProcess::new(Arc::clone(&self.api), identity)
    }

    /// A kubeconfig for the administrator, valid for about a year.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn administrator(&self) -> Result<String, CaError> {
        let user = Identity::administrator();
        let leaf: Leaf =
            self.authority.client(&user.user, Some(osc_access::identity::MASTERS), OffsetDateTime::now_utc())?;
        let config = Kubeconfig {
            cluster: "sandboxed-containers",
            server: &format!("https://{}", self.address),
            ca_pem: self.authority.certificate_pem(),
            user: &user.user,
            credential: Credential::Certificate(&leaf),
        };
        Ok(config.render())
    }

    /// Stops serving: running requests end, watches are cut, the store is closed.
    pub async fn shutdown(&self) {
        self.api.stop.cancel();
        self.server.close();
        self.server.wait().await;
        self.api.tasks.close();
        self.api.tasks.wait().await;
        self.api.store.close().await;
    }
}

/// How a client on this machine reaches what listens at `listen`.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn api(mut config: Config, store: Store, signer: Signer) -> Api {
    let catalog = Arc::new(Catalog::default());
    let reader = Reader::new(store.clone(), Arc::clone(&catalog));
    let fixed = std::mem::take(&mut config.tokens);
    let audiences = vec!["https://kubernetes.default.svc".into(), "api".into()];
    Api {
        load: Load::new(config.limits),
        metrics: Metrics::default(),
        outlines: Outlines::default(),
        config,
        catalog,
        authenticator: Authenticator { signer, fixed, audiences },
        authorizer: Arc::new(Authorizer::new()),
        admission: Chain::new(reader.clone()),
        reader,
        nodes: Nodes::default(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        store,
    }
}
