//! TLS configuration of the API server.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;

use super::{Authority, CaError, Leaf};

/// The server's certificate, replaced by itself before it ends: a server may run for years.
#[derive(Debug)]
pub struct ServerCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: Mutex<(Leaf, Arc<CertifiedKey>)>,
}

impl ServerCertificate {
    /// Makes the first certificate for `names`.
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Result<ServerCertificate, CaError> {
        let first = make(&authority, &names)?;
        Ok(ServerCertificate { authority, names, current: Mutex::new(first) })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0.is_due(OffsetDateTime::now_utc()) {
            // Names were good for the first certificate; should this fail all the same, the old one still serves.
            if let Ok(next) = make(&self.authority, &self.names) {
                *current = next;
            }
        }
        current.1.clone()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn make(authority: &Authority, names: &[String]) -> Result<(Leaf, Arc<CertifiedKey>), CaError> {
    let leaf = authority.server(names, OffsetDateTime::now_utc())?;
    let certificate = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).map_err(tls)?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).map_err(tls)?;
    let chain = vec![certificate, authority.certificate.clone()];
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(tls)?;
    Ok((leaf, Arc::new(certified)))
}

impl Authority {
    /// TLS for a server known under `names`. Clients may show a certificate of this authority; a foreign or ended
    /// one fails the handshake. Speaks HTTP/2 and HTTP/1.1.
    pub fn server_config(self: &Arc<Self>, names: Vec<String>) -> Result<ServerConfig, CaError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(tls)?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(tls)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(ServerCertificate::new(self.clone(), names)?));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn tls(source: impl std::error::Error + Send + Sync + 'static) -> CaError {
    CaError::Tls { source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};
    use std::io::{Read, Write};

    /// Shakes hands in memory and returns what the server saw of the client.
    fn handshake(
        server: Arc<ServerConfig>,
        client: ClientConfig,
        name: &str,
    ) -> Result<Option<Vec<CertificateDer<'static>>>, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        client.writer().write_all(b"x").unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        server.reader().read_exact(&mut [0]).unwrap();
        Ok(server.peer_certificates().map(<[_]>::to_vec))
    }

    fn client(authority: &Authority, leaf: Option<&Leaf>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let certificate = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }

    #[test]
    fn clients_with_and_without_certificates_get_in_and_strangers_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let own = Arc::new(Authority::open(&directory.path().join("a"), now).unwrap());
        let foreign = Authority::open(&directory.path().join("b"), now).unwrap();
        let names = vec!["127.0.0.1".to_owned(), "kubernetes.default.svc".to_owned()];
        let config = Arc::new(own.server_config(names).unwrap());

        for name in ["127.0.0.1", "kubernetes.default.svc"] {
            assert_eq!(handshake(config.clone(), client(&own, None), name).unwrap(), None);
        }
        let leaf = own.client("jane", Some("dev"), now).unwrap();
        let seen = handshake(config.clone(), client(&own, Some(&leaf)), "127.0.0.1").unwrap();
        assert_eq!(seen.unwrap().len(), 1);

        handshake(config.clone(), client(&own, None), "example.org").expect_err("another name");
        handshake(config.clone(), client(&foreign, None), "127.0.0.1").expect_err("a server it does not trust");
        let stranger = foreign.client("jane", None, now).unwrap();
        handshake(config.clone(), client(&own, Some(&stranger)), "127.0.0.1").expect_err("a foreign client");
        let ended = own.client("jane", None, now - time::Duration::days(400)).unwrap();
        handshake(config, client(&own, Some(&ended)), "127.0.0.1").expect_err("an ended client");
    }

    #[test]
    fn a_due_server_certificate_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path(), OffsetDateTime::now_utc()).unwrap());
        let server = ServerCertificate::new(authority, vec!["localhost".to_owned()]).unwrap();
        let first = server.current();
        assert!(Arc::ptr_eq(&first, &server.current()), "kept while good");
        server.current.lock().unwrap().0.not_after = OffsetDateTime::now_utc() + time::Duration::days(1);
        assert!(!Arc::ptr_eq(&first, &server.current()), "replaced when due");
    }
}
