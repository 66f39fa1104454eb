//! Trusting servers outside, such as webhooks, by a bundle of certificates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The bundle is not usable.
#[derive(Debug, thiserror::Error)]
pub enum BadBundle {
    /// It holds no certificate.
    #[error("bundle holds no certificate in PEM form")]
    Empty,
    /// A part of it is no certificate.
    #[error("bundle holds something that is not a certificate")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// TLS for a client that trusts the certificates in `bundle` (PEM) and nothing else. Speaks HTTP/1.1.
pub fn trusting(bundle: &[u8]) -> Result<ClientConfig, BadBundle> {
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(malformed)?;
        roots.add(certificate.clone()).map_err(malformed)?;
        pinned.push(certificate);
    }
    if pinned.is_empty() {
        return Err(BadBundle::Empty);
    }
    let provider = Arc::new(ring::default_provider());
    let chains =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(malformed)?;
    let verifier = Verifier { chains, pinned, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(malformed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn malformed(source: impl std::error::Error + Send + Sync + 'static) -> BadBundle {
    BadBundle::Malformed(Box::new(source))
}

/// Verifies chains up to the bundle, and knows the certificates in the bundle themselves.
///
/// The latter because a self-signed server certificate is often its own bundle: chains never end in the certificate
/// they begin with, yet such a server holds the key of a certificate that was trusted by name.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pinned.contains(end_entity) {
            return self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        check_period(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |error| Error::InvalidCertificate(error);
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(bad(CertificateError::NotValidYet));
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(bad(CertificateError::Expired));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;
    use time::OffsetDateTime;

    fn self_signed(name: &str, not_after: OffsetDateTime) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = not_after;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_self_signed_server_is_trusted_only_by_its_own_bundle() {
        let now = OffsetDateTime::now_utc();
        let own = self_signed("hook.a.svc", now + time::Duration::days(1));
        let ended = self_signed("hook.a.svc", now - time::Duration::days(1));
        let other = self_signed("hook.a.svc", now + time::Duration::days(1));
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(own.clone()).unwrap();
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let verifier = Verifier { chains, pinned: vec![own.clone(), ended.clone()], provider };
        let unix = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_timestamp().unsigned_abs()));
        for (certificate, name, want) in [
            (&own, "hook.a.svc", true),
            (&own, "hook.b.svc", false),
            (&ended, "hook.a.svc", false),
            (&other, "hook.a.svc", false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            let seen = verifier.verify_server_cert(certificate, &[], &name, &[], unix);
            assert_eq!(seen.is_ok(), want, "{name:?} {seen:?}");
        }
    }

    #[test]
    fn bundles_without_certificates_are_refused() {
        assert!(matches!(trusting(b""), Err(BadBundle::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(trusting(broken), Err(BadBundle::Malformed(_))));
        assert!(trusting(&[0xff; 64]).is_err());
    }
}
