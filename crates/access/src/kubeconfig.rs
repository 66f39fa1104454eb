//! Kubeconfig files: everything a client needs, in one file.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::ca::Leaf;
use crate::files;

/// How the client proves who it is.
#[derive(Debug)]
pub enum Credential<'a> {
    /// A client certificate.
    Certificate(&'a Leaf),
    /// A bearer token.
    Token(&'a str),
}

/// One cluster, one user, one context, which is the current one.
#[derive(Debug)]
pub struct Kubeconfig<'a> {
    /// Name of cluster and context.
    pub cluster: &'a str,
    /// Address of the API server, such as `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// Certificate of the authority that signed the server's.
    pub ca_pem: &'a str,
    /// Name of the user's entry.
    pub user: &'a str,
    /// The user's credential.
    pub credential: Credential<'a>,
}

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write kubeconfig {}: check the folder and its permissions", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Kubeconfig<'_> {
    /// The text of the file. It is JSON, which every reader of YAML takes.
    pub fn render(&self) -> String {
        let user = match &self.credential {
            Credential::Certificate(leaf) => json!({
                "client-certificate-data": STANDARD.encode(&leaf.certificate_pem),
                "client-key-data": STANDARD.encode(&leaf.key_pem),
            }),
            Credential::Token(token) => json!({ "token": token }),
        };
        let cluster = json!({
            "server": self.server,
            "certificate-authority-data": STANDARD.encode(self.ca_pem),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": self.cluster, "cluster": cluster }],
            "users": [{ "name": self.user, "user": user }],
            "contexts": [{ "name": self.cluster, "context": { "cluster": self.cluster, "user": self.user } }],
            "current-context": self.cluster,
            "preferences": {},
        });
        format!("{config:#}\n")
    }

    /// Replaces the file at `path`; only its owner can read it. Entries of other clusters are not kept.
    pub fn write(&self, path: &Path) -> Result<(), WriteError> {
        files::replace(path, self.render().as_bytes()).map_err(|source| WriteError { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_file_is_complete_private_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, "something old and much longer than nothing").unwrap();
        let config = Kubeconfig {
            cluster: "osc",
            server: "https://127.0.0.1:6443",
            ca_pem: "CA",
            user: "admin",
            credential: Credential::Token("t\"ken"),
        };
        config.write(&path).unwrap();
        let seen: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(seen["clusters"][0]["cluster"]["certificate-authority-data"], STANDARD.encode("CA"));
        assert_eq!(seen["users"][0]["user"]["token"], "t\"ken");
        assert_eq!(seen["contexts"][0]["name"], seen["current-context"]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
