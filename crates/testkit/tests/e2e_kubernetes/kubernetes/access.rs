//! Who is who: an authority of the cluster's own, certificates, kubeconfigs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use osc_access::{
    ca::{Authority, Leaf},
    kubeconfig::{Credential, Kubeconfig},
};
use time::OffsetDateTime;

/// Certificates and kubeconfigs of one cluster, as files in a directory.
pub struct Access {
    directory: PathBuf,
    authority: Authority,
    server: String,
}

impl Access {
    /// A new authority for the cluster whose API is at `server`.
    pub fn new(directory: &Path, server: String) -> Self {
        let authority = Authority::open(directory, OffsetDateTime::now_utc()).unwrap();
        Self { directory: directory.into(), authority, server }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Certificate and key of a server.
    pub fn server(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        self.store(file, &self.authority.server(&names, OffsetDateTime::now_utc()).unwrap())
    }

    /// Certificate and key of a client.
    pub fn client(&self, user: &str, group: Option<&str>) -> (PathBuf, PathBuf) {
        self.store(&user.replace(':', "-"), &self.leaf(user, group))
    }

    /// Kubeconfig of a client with a certificate.
    pub fn kubeconfig(&self, user: &str, group: Option<&str>) -> PathBuf {
        let path = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
        self.write(&path, user, Credential::Certificate(&self.leaf(user, group)));
        path
    }

    /// Kubeconfig of the administrator, at `path`.
    pub fn administrator(&self, path: &Path) {
        self.write(path, "administrator", Credential::Certificate(&self.leaf("administrator", Some("system:masters"))));
    }

    /// Kubeconfig of an account that has a token.
    pub fn account(&self, name: &str, token: &str) -> PathBuf {
        let path = self.directory.join(format!("{name}.kubeconfig"));
        self.write(&path, name, Credential::Token(token));
        path
    }

    fn leaf(&self, user: &str, group: Option<&str>) -> Leaf {
        self.authority.client(user, group, OffsetDateTime::now_utc()).unwrap()
    }

    fn store(&self, name: &str, leaf: &Leaf) -> (PathBuf, PathBuf) {
        let paths = (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        fs::write(&paths.0, &leaf.certificate_pem).unwrap();
        fs::write(&paths.1, &leaf.key_pem).unwrap();
        paths
    }

    fn write(&self, path: &Path, user: &str, credential: Credential<'_>) {
        let ca_pem = self.authority.certificate_pem();
        let made = Kubeconfig { cluster: "kubernetes", server: &self.server, ca_pem, user, credential };
        made.write(path).unwrap();
    }
}
