//! Certificates for servers and clients.

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::{Authority, CLOCK_SKEW, CaError};

/// How long server and client certificates last.
const LIFETIME: Duration = Duration::days(365);

/// A certificate with its private key.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key: a secret.
    pub key_pem: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Leaf").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Leaf {
    /// Whether it is time to replace it: a third of its life is left.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        self.not_after - now < LIFETIME / 3
    }
}

impl Authority {
    /// A certificate for a server known under `names`, DNS names and IP addresses.
    pub fn server(&self, names: &[String], now: OffsetDateTime) -> Result<Leaf, CaError> {
        let subject = names.first().map_or("kubernetes", String::as_str);
        let mut params = CertificateParams::new(names).map_err(|source| issue(subject, source))?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        self.issue(subject, params, ExtendedKeyUsagePurpose::ServerAuth, now)
    }

    /// A certificate by which a client is `user`, in `group` if there is one.
    pub fn client(&self, user: &str, group: Option<&str>, now: OffsetDateTime) -> Result<Leaf, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.issue(user, params, ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    pub(crate) fn issue(
        &self,
        subject: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        now: OffsetDateTime,
    ) -> Result<Leaf, CaError> {
        let not_after = now + LIFETIME;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = not_after;
        let key = KeyPair::generate().map_err(|source| issue(subject, source))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|source| issue(subject, source))?;
        Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), not_after })
    }
}

/// When the first certificate of a PEM text ends.
pub fn expiry(pem: &str) -> Result<OffsetDateTime, BadCertificate> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadCertificate)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| BadCertificate)?;
    Ok(parsed.validity().not_after.to_datetime())
}

/// The text holds no certificate.
#[derive(Debug, thiserror::Error)]
#[error("not a certificate in PEM form")]
pub struct BadCertificate;

fn issue(subject: &str, source: rcgen::Error) -> CaError {
    CaError::Issue { subject: subject.to_owned(), source }
}
