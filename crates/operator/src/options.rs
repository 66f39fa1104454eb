//! Settings of the operator.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use osc_objects::names;
use osc_service::leader::LeaseTimes;

/// Names under which platforms know the extension.
pub(crate) const EXTENSIONS: [&str; 2] = ["sandboxed-containers", "kata-containers"];

/// What the operator is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its own namespace.
    pub namespace: String,
    /// Extension that MachineConfigs ask for: `sandboxed-containers` on Red Hat CoreOS,
    /// `kata-containers` elsewhere.
    pub extension: String,
    /// Image of the monitor; none, no monitor.
    pub monitor_image: Option<String>,
    /// Name of this process among its replicas.
    pub identity: String,
    /// How leadership is held.
    pub lease: LeaseTimes,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The admission webhook; none, only the races it cannot see are settled.
    pub webhook: Option<WebhookOptions>,
    /// A node that is being emptied for longer than this needs somebody's help.
    pub drain_patience: Duration,
}

/// Where the admission webhook listens and how the API reaches it.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// How the API server reaches it.
    pub reached_by: ReachedBy,
}

/// How the API server reaches the webhook, and whose certificate it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReachedBy {
    /// Through a Service of this name; we make the certificate and the configuration.
    Service(String),
    /// Under the address it listens on; we make the certificate and the configuration.
    Address,
    /// The platform made both; the certificate is in this directory as `tls.crt` and `tls.key`.
    Platform(PathBuf),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.into(),
            extension: "kata-containers".into(),
            monitor_image: None,
            identity: format!("osc-operator-{}", std::process::id()),
            lease: LeaseTimes::default(),
            metrics: None,
            webhook: None,
            drain_patience: Duration::from_secs(600),
        }
    }
}
