//! What a control plane is told at its start.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use osc_access::token::FixedTokens;

use crate::{server::Limits, services::Network};

/// Where a control plane keeps its state and how it is reached.
#[derive(Debug)]
pub struct Config {
    /// Directory of the store and, in `pki/`, of keys and certificates.
    pub directory: PathBuf,
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// Address others reach this server at, as told to pods.
    pub advertise: IpAddr,
    /// Further names and addresses in the server's certificate.
    pub names: Vec<String>,
    /// Addresses of Services.
    pub service_network: Network,
    /// Tokens accepted beside certificates and those of service accounts.
    pub tokens: FixedTokens,
    /// Bounds on clients.
    pub limits: Limits,
    /// How much history the store keeps.
    pub store: osc_store::Options,
}

impl Config {
    /// State in `directory`, reachable on this machine only.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: Ipv4Addr::LOCALHOST.into(),
            names: Vec::new(),
            service_network: Network::new(Ipv4Addr::new(10, 96, 0, 0), 16).expect("a /16 leaves room"),
            tokens: FixedTokens::default(),
            limits: Limits::default(),
            store: osc_store::Options::default(),
        }
    }

    /// The port clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Address and port as told to clients.
    pub(crate) fn advertised(&self) -> String {
        SocketAddr::new(self.advertise, self.port()).to_string()
    }

    /// Every name and address clients may use.
    pub(crate) fn all_names(&self) -> Vec<String> {
        let mut names: Vec<String> = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .into();
        names.push(self.service_network.first().to_string());
        names.push(self.advertise.to_string());
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(self.names.iter().cloned());
        names.sort();
        names.dedup();
        names
    }
}
