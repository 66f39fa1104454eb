//! The certificate authority of one control plane.
//!
//! Two files live in its directory: `ca.key` (created once) and `ca.crt`. Server and client certificates are made
//! on demand and kept by whoever needs them, so that nothing else on disk can grow old. The authority's own
//! certificate is renewed with the same key well before it ends: certificates it signed earlier stay valid.

mod leaf;
mod tls;
mod trust;

pub use leaf::{Leaf, expiry};
pub use tls::ServerCertificate;
pub use trust::{BadBundle, trusting};

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use crate::files;

const LIFETIME: Duration = Duration::days(3650);
/// What is left of the authority's certificate when it is renewed: longer than any certificate it signs.
const RENEW_BEFORE: Duration = Duration::days(2 * 365);
/// Certificates begin a little in the past, for machines whose clocks disagree.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Signs the certificates of one control plane.
pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key or certificate file cannot be read or written.
    #[error("cannot access {}: check its permissions and the disk", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is there, its key is not: a new key would lock out every client.
    #[error("{} exists but its key {} is missing: restore the key, or remove both to start with a new authority", certificate.display(), key.display())]
    KeyMissing {
        /// The certificate.
        certificate: PathBuf,
        /// The file that is missing.
        key: PathBuf,
    },
    /// A file holds something else than a key or certificate.
    #[error("{} is damaged: restore it, or remove the whole directory to start with a new authority", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `ca.crt` was not made for `ca.key`.
    #[error("{} does not belong to the key beside it: restore the pair, or remove both", certificate.display())]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {subject:?}: names must be DNS names or IP addresses")]
    Issue {
        /// Common name of the certificate.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The TLS library refuses the certificates.
    #[error("cannot set up TLS: the system's cryptography is not usable")]
    Tls {
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Authority {
    /// Loads the authority of `directory`, creating it the first time and renewing its certificate when due.
    pub fn open(directory: &Path, now: OffsetDateTime) -> Result<Authority, CaError> {
        let key_path = directory.join("ca.key");
        let certificate_path = directory.join("ca.crt");
        let stored_key = read(&key_path)?;
        let stored_certificate = read(&certificate_path)?;
        let key = match (&stored_key, &stored_certificate) {
            (Some(pem), _) => KeyPair::from_pem(pem).map_err(|source| damaged(&key_path, source))?,
            (None, None) => create_key(&key_path)?,
            (None, Some(_)) => return Err(CaError::KeyMissing { certificate: certificate_path, key: key_path }),
        };
        let certificate_pem = match stored_certificate {
            Some(pem) => {
                check_pair(&certificate_path, &pem, &key)?;
                let ends = expiry(&pem).map_err(|source| damaged(&certificate_path, source))?;
                if ends - now > RENEW_BEFORE { pem } else { create_certificate(&certificate_path, &key, now)? }
            }
            // Also a first start that died between the two files.
            None => create_certificate(&certificate_path, &key, now)?,
        };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|source| damaged(&certificate_path, source))?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|source| damaged(&certificate_path, source))?;
        Ok(Authority { certificate_pem, certificate, issuer })
    }

    /// The authority's own certificate: what clients trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
}

fn create_key(path: &Path) -> Result<KeyPair, CaError> {
    let key = KeyPair::generate().map_err(|source| CaError::Issue { subject: "authority".to_owned(), source })?;
    files::replace(path, key.serialize_pem().as_bytes())
        .map_err(|source| CaError::File { path: path.to_owned(), source })?;
    Ok(key)
}

fn create_certificate(path: &Path, key: &KeyPair, now: OffsetDateTime) -> Result<String, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + LIFETIME;
    let certificate =
        params.self_signed(key).map_err(|source| CaError::Issue { subject: "kubernetes".to_owned(), source })?;
    let pem = certificate.pem();
    files::replace(path, pem.as_bytes()).map_err(|source| CaError::File { path: path.to_owned(), source })?;
    Ok(pem)
}

fn check_pair(path: &Path, pem: &str, key: &KeyPair) -> Result<(), CaError> {
    use rcgen::PublicKeyData;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| damaged(path, source))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|source| damaged(path, source))?;
    if parsed.public_key().raw == key.subject_public_key_info() {
        Ok(())
    } else {
        Err(CaError::Mismatch { certificate: path.to_owned() })
    }
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    files::read_if_present(path).map_err(|source| CaError::File { path: path.to_owned(), source })
}

fn damaged(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> CaError {
    CaError::Damaged { path: path.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_survives_reopening_and_its_files_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki");
        let now = OffsetDateTime::now_utc();
        let first = Authority::open(&path, now).unwrap();
        let second = Authority::open(&path, now).unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        for name in ["ca.key", "ca.crt"] {
            let mode = std::fs::metadata(path.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "drafts are gone");
    }

    #[test]
    fn the_authority_is_renewed_with_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let old = Authority::open(directory.path(), now).unwrap();
        let key = std::fs::read(directory.path().join("ca.key")).unwrap();
        let late = now + LIFETIME - Duration::days(300);
        let new = Authority::open(directory.path(), late).unwrap();
        assert_ne!(old.certificate_pem(), new.certificate_pem());
        assert_eq!(key, std::fs::read(directory.path().join("ca.key")).unwrap());
        assert!(expiry(new.certificate_pem()).unwrap() > late + RENEW_BEFORE);
    }

    #[test]
    fn a_damaged_directory_is_refused_and_left_alone() {
        let now = OffsetDateTime::now_utc();
        let other = tempfile::tempdir().unwrap();
        Authority::open(other.path(), now).unwrap();
        type Damage<'a> = &'a dyn Fn(&Path);
        let rows: [(&str, Damage<'_>); 4] = [
            ("is missing", &|path| std::fs::remove_file(path.join("ca.key")).unwrap()),
            ("ca.key is damaged", &|path| std::fs::write(path.join("ca.key"), "rubbish").unwrap()),
            ("ca.crt is damaged", &|path| std::fs::write(path.join("ca.crt"), "rubbish").unwrap()),
            ("does not belong", &|path| {
                std::fs::copy(other.path().join("ca.crt"), path.join("ca.crt")).unwrap();
            }),
        ];
        for (want, damage) in rows {
            let directory = tempfile::tempdir().unwrap();
            Authority::open(directory.path(), now).unwrap();
            damage(directory.path());
            let certificate = std::fs::read(directory.path().join("ca.crt")).unwrap();
            let error = Authority::open(directory.path(), now).unwrap_err().to_string();
            assert!(error.contains(want), "{want}: {error}");
            assert_eq!(certificate, std::fs::read(directory.path().join("ca.crt")).unwrap());
        }
    }

    #[test]
    fn a_start_that_died_between_the_files_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        Authority::open(directory.path(), now).unwrap();
        std::fs::remove_file(directory.path().join("ca.crt")).unwrap();
        Authority::open(directory.path(), now).unwrap();
    }
}
