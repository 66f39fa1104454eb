//! A certificate and an authority made for it alone, whose key is thrown away.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// How long a certificate lasts.
const LIFETIME: Duration = Duration::days(365);
/// It is replaced when this much of its life is left.
const RENEW_BEFORE: Duration = Duration::days(120);
/// Clocks of others may be behind.
const SKEW: Duration = Duration::hours(1);

/// Certificate, key and the authorities to trust, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    pub certificate: String,
    pub key: String,
    /// The present authority and, for those who still serve the last certificate, the one before.
    pub bundle: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Certificate {
    /// A new one for a server of these names; `last` is the one it replaces.
    pub(super) fn issue(
        names: &[String],
        now: OffsetDateTime,
        last: Option<&Certificate>,
    ) -> Result<Certificate, rcgen::Error> {
        let not_after = now + LIFETIME;
        let mut root = CertificateParams::default();
        root.distinguished_name = named("sandboxed-containers-webhook-ca");
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (root.not_before, root.not_after) = (now - SKEW, not_after);
        let root_key = KeyPair::generate()?;
        let root_pem = root.self_signed(&root_key)?.pem();
        let issuer = Issuer::new(root, root_key);

        let mut leaf = CertificateParams::new(names.to_vec())?;
        leaf.distinguished_name = named(names.first().map_or("webhook", String::as_str));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (leaf.not_before, leaf.not_after) = (now - SKEW, not_after);
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?.pem();
        let before = last.map(|last| first_certificate(&last.bundle)).unwrap_or_default();
        let bundle = format!("{root_pem}{before}");
        Ok(Certificate { certificate, key: key.serialize_pem(), bundle, not_after: not_after.unix_timestamp() })
    }

    /// Whether it is time for the next.
    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        self.not_after - now.unix_timestamp() < RENEW_BEFORE.whole_seconds()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    // Longer common names are not valid.
    named.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    named
}

fn first_certificate(bundle: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.find(END).map(|at| format!("{}\n", &bundle[..at + END.len()])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_replaced_in_time_and_the_last_authority_stays_trusted() {
        let start = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let first = Certificate::issue(&["a.b.svc".into()], start, None).unwrap();
        assert!(!first.is_due(start) && !first.is_due(start + Duration::days(244)));
        assert!(first.is_due(start + Duration::days(246)));
        let second = Certificate::issue(&["a.b.svc".into()], start, Some(&first)).unwrap();
        assert!(second.bundle.ends_with(&first.bundle) && second.bundle != first.bundle);
        let third = Certificate::issue(&["a.b.svc".into()], start, Some(&second)).unwrap();
        assert_eq!(third.bundle.matches("BEGIN").count(), 2, "authorities do not pile up");
    }
}
