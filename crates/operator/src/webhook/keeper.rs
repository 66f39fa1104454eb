//! Keeps a good certificate in service: made or read, published, renewed.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use osc_fault::chain;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::OffsetDateTime;

use super::{
    certificate::Certificate,
    configuration::{self, CONFIGURATION, Place},
};
use crate::{
    error::{Attempt, Error},
    options::ReachedBy,
};

/// Where replicas share the certificate.
pub(crate) const SECRET: &str = "sandboxed-containers-webhook-cert";
/// Until a good certificate is looked after again.
const GOOD: Duration = Duration::from_secs(600);
/// Until a failure is tried again.
const BAD: Duration = Duration::from_secs(2);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("certificate cannot be made; it is tried again")]
    Make(#[from] rcgen::Error),
    #[error("certificate cannot be used: delete Secret {SECRET} or correct the platform's files")]
    Use(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("certificate cannot be read from {path}")]
    File { path: String, source: std::io::Error },
    #[error(transparent)]
    Api(#[from] Error),
}

/// Keeps the certificate.
pub(super) struct Keeper {
    client: Client,
    namespace: String,
    reached_by: ReachedBy,
    port: u16,
    shown: Arc<Shown>,
}

/// The certificate in service; none, and handshakes fail until there is one.
#[derive(Debug, Default)]
struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Keeper {
    pub(super) fn new(client: Client, namespace: String, reached_by: ReachedBy, port: u16) -> Self {
        Self { client, namespace, reached_by, port, shown: Arc::default() }
    }

    /// TLS that shows whatever is in service.
    pub(super) fn tls(&self) -> Result<ServerConfig, rustls::Error> {
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = versions.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Never ends.
    pub(super) async fn keep(&self) {
        let mut own = None;
        loop {
            let pause = match self.look_after(&mut own).await {
                Ok(()) => GOOD,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "certificate of the webhook not in order");
                    BAD
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Certificate first, then the trust in it, then it is shown: nobody meets one that is not trusted.
    async fn look_after(&self, own: &mut Option<Certificate>) -> Result<(), KeepError> {
        match &self.reached_by {
            ReachedBy::Platform(directory) => {
                let certificate = read(&directory.join("tls.crt")).await?;
                let key = read(&directory.join("tls.key")).await?;
                self.show(&certificate, &key)
            }
            ReachedBy::Service(name) => {
                let names =
                    [format!("{name}.{}.svc", self.namespace), format!("{name}.{}.svc.cluster.local", self.namespace)];
                let certificate = self.shared(&names).await?;
                self.publish(&Place::Service(&self.namespace, name), &certificate.bundle).await?;
                self.show(&certificate.certificate, &certificate.key)
            }
            ReachedBy::Address => {
                let now = OffsetDateTime::now_utc();
                let due = own.as_ref().is_none_or(|own| own.is_due(now));
                if due {
                    *own = Some(Certificate::issue(&["127.0.0.1".into(), "localhost".into()], now, own.as_ref())?);
                }
                let Some(certificate) = own else { return Ok(()) };
                let base = format!("https://127.0.0.1:{}", self.port);
                self.publish(&Place::Url(&base), &certificate.bundle).await?;
                self.show(&certificate.certificate, &certificate.key)
            }
        }
    }

    /// The certificate all replicas share; made when there is none or it is due.
    async fn shared(&self, names: &[String]) -> Result<Certificate, KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let now = OffsetDateTime::now_utc();
        let found = api.get_opt(SECRET).await.reading(SECRET)?;
        let present = found.as_ref().and_then(from_secret);
        if let Some(good) = present.clone().filter(|present| !present.is_due(now)) {
            return Ok(good);
        }
        let made = Certificate::issue(names, now, present.as_ref())?;
        let mut secret = to_secret(&made);
        let attempt = "write Secret";
        if let Some(found) = found {
            // Of two replicas that renew at once, one fails and reads the other's next time.
            secret.metadata.resource_version = found.resource_version();
            api.replace(SECRET, &PostParams::default(), &secret).await.during(attempt, SECRET)?;
        } else {
            api.create(&PostParams::default(), &secret).await.during(attempt, SECRET)?;
        }
        Ok(made)
    }

    async fn publish(&self, place: &Place<'_>, bundle: &str) -> Result<(), KeepError> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let wanted = configuration::configuration(place, Some(bundle));
        let params = PatchParams::apply("osc-operator").force();
        let done = api.patch(CONFIGURATION, &params, &Patch::Apply(&wanted)).await;
        done.during("apply ValidatingWebhookConfiguration", CONFIGURATION)?;
        Ok(())
    }

    fn show(&self, certificate: &str, key: &str) -> Result<(), KeepError> {
        let usable = |error: Box<dyn std::error::Error + Send + Sync>| KeepError::Use(error);
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| usable(error.into()))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| usable(error.into()))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified = certified.map_err(|error| usable(error.into()))?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }
}

async fn read(path: &Path) -> Result<String, KeepError> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|source| KeepError::File { path: path.display().to_string(), source })
}

fn from_secret(secret: &Secret) -> Option<Certificate> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
    Some(Certificate {
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
        bundle: text("ca.crt")?,
        not_after: text("not-after")?.parse().ok()?,
    })
}

fn to_secret(certificate: &Certificate) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [
        ("tls.crt", bytes(&certificate.certificate)),
        ("tls.key", bytes(&certificate.key)),
        ("ca.crt", bytes(&certificate.bundle)),
        ("not-after", bytes(&certificate.not_after.to_string())),
    ];
    Secret {
        metadata: ObjectMeta { name: Some(SECRET.into()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..Secret::default()
    }
}
