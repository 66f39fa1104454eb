//! From credentials to an identity.
//!
//! Tried in this order, the first that is presented decides: the TLS client certificate, then the bearer token
//! (fixed, then signed). Nothing presented is anonymous; something wrong presented is refused.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::identity::Identity;
use crate::token::{Claims, FixedTokens, Reference, Rejected, Signer};

/// Finds out who a request speaks for.
#[derive(Debug)]
pub struct Authenticator {
    /// Verifies the tokens of service accounts.
    pub signer: Signer,
    /// Accepted beside them.
    pub fixed: FixedTokens,
    /// Names under which this API server accepts tokens, besides the signer's issuer.
    pub audiences: Vec<String>,
}

/// The credentials are no good; clients are told nothing more than `Unauthorized`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// The certificate names nobody.
    #[error("client certificate has no common name")]
    Certificate,
    /// Another scheme than `Bearer`, or no token after it.
    #[error("authorization header holds no bearer token")]
    Header,
    /// The token is not accepted.
    #[error("token is rejected")]
    Token(#[source] Rejected),
    /// The token outlived what it was bound to.
    #[error("token is bound to {resource} {name}, which is gone or was replaced")]
    Dead {
        /// Plural of the object's kind.
        resource: &'static str,
        /// Name of the object.
        name: String,
    },
}

/// A token that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Whom it speaks for.
    pub identity: Identity,
    /// Those of the asked audiences it is for.
    pub audiences: Vec<String>,
}

impl Authenticator {
    /// Who sent a request.
    ///
    /// `peer` is the chain shown in the TLS handshake, which must have verified it already (as the configuration of
    /// [`crate::ca::Authority::server_config`] does); `authorization` the header of that name; `live` gives the uid
    /// of an object that exists and is not being deleted beyond its grace period.
    pub fn authenticate(
        &self,
        peer: &[CertificateDer<'_>],
        authorization: Option<&str>,
        live: impl Fn(&Reference<'_>) -> Option<String>,
        now: OffsetDateTime,
    ) -> Result<Identity, Unauthorized> {
        if let Some(certificate) = peer.first() {
            return from_certificate(certificate).ok_or(Unauthorized::Certificate);
        }
        match authorization.map(str::trim) {
            None | Some("") => Ok(Identity::anonymous()),
            Some(header) => {
                let token = bearer(header).ok_or(Unauthorized::Header)?;
                Ok(self.review(token, &[], live, now)?.identity)
            }
        }
    }

    /// Judges one token, as a TokenReview asks for. Without `audiences` it must be for this API server.
    pub fn review(
        &self,
        token: &str,
        audiences: &[String],
        live: impl Fn(&Reference<'_>) -> Option<String>,
        now: OffsetDateTime,
    ) -> Result<Accepted, Unauthorized> {
        let mut own = self.audiences.clone();
        own.push(self.signer.issuer().to_owned());
        let asked = if audiences.is_empty() { &own } else { audiences };
        if let Some(identity) = self.fixed.find(token) {
            // A fixed token is for this server alone.
            let shared = intersection(asked, &own);
            return if shared.is_empty() {
                Err(Unauthorized::Token(Rejected::Audience(own)))
            } else {
                Ok(Accepted { identity: identity.clone(), audiences: shared })
            };
        }
        let claims = self.signer.verify(token, asked, now).map_err(Unauthorized::Token)?;
        check_alive(&claims, live)?;
        Ok(Accepted { identity: claims.identity(), audiences: intersection(asked, &claims.aud) })
    }
}

fn check_alive(claims: &Claims, live: impl Fn(&Reference<'_>) -> Option<String>) -> Result<(), Unauthorized> {
    for (object, uid) in claims.dependencies() {
        if live(&object).as_deref() != Some(uid) {
            return Err(Unauthorized::Dead { resource: object.resource, name: object.name.to_owned() });
        }
    }
    Ok(())
}

fn intersection(asked: &[String], granted: &[String]) -> Vec<String> {
    asked.iter().filter(|audience| granted.contains(audience)).cloned().collect()
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// User from the common name, groups from the organisations.
fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().map(|group| group.as_str()).collect::<Result<_, _>>().ok()?;
    (!user.is_empty()).then(|| Identity::new(user, groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, Leaf};
    use crate::token::{Named, Request};
    use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose};
    use rustls::pki_types::pem::PemObject;
    use time::Duration;

    fn authenticator() -> (tempfile::TempDir, Authenticator) {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(&directory.path().join("sa.key"), "https://k").unwrap();
        let fixed = FixedTokens::parse("fixed,jane,u,dev").unwrap();
        (directory, Authenticator { signer, fixed, audiences: vec!["api".into()] })
    }

    fn everything_lives(object: &Reference<'_>) -> Option<String> {
        Some(format!("uid of {}/{}", object.resource, object.name))
    }

    fn token(authenticator: &Authenticator, now: OffsetDateTime) -> String {
        let request = Request {
            namespace: "web",
            account: Named::new("shop", "uid of serviceaccounts/shop"),
            pod: Some(Named::new("p", "uid of pods/p")),
            node: Some(Named::new("n", "uid of nodes/n")),
            secret: None,
            audiences: vec!["api".into(), "vault".into()],
            lifetime: Duration::minutes(10),
        };
        authenticator.signer.issue(&request, now).unwrap().text
    }

    /// The library that makes certificates keeps one organisation by its name; a second one needs its number.
    fn two_groups(authority: &Authority, now: OffsetDateTime) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
        authority.issue("jane", params, ExtendedKeyUsagePurpose::ClientAuth, now).unwrap()
    }

    #[test]
    fn certificates_name_user_and_groups() {
        let (directory, authenticator) = authenticator();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::open(directory.path(), now).unwrap();
        let leaf = two_groups(&authority, now);
        let peer = [CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap()];
        let seen = authenticator.authenticate(&peer, Some("Bearer rubbish"), everything_lives, now).unwrap();
        assert_eq!(seen, Identity::new("jane", ["dev", "ops"]), "the certificate comes first");
        let nameless = authority.client("", Some("system:masters"), now).unwrap();
        let peer = [CertificateDer::from_pem_slice(nameless.certificate_pem.as_bytes()).unwrap()];
        let refused = authenticator.authenticate(&peer, None, everything_lives, now);
        assert_eq!(refused, Err(Unauthorized::Certificate));
    }

    #[test]
    fn headers_name_users_or_are_refused() {
        let (_directory, authenticator) = authenticator();
        let now = OffsetDateTime::now_utc();
        let signed = format!("bearer  {}", token(&authenticator, now));
        let rows: [(Option<&str>, Result<&str, Unauthorized>); 9] = [
            (None, Ok("system:anonymous")),
            (Some(""), Ok("system:anonymous")),
            (Some("Bearer fixed"), Ok("jane")),
            (Some(&signed), Ok("system:serviceaccount:web:shop")),
            (Some("Bearer other"), Err(Unauthorized::Token(Rejected::Malformed))),
            (Some("Bearer"), Err(Unauthorized::Header)),
            (Some("Bearer "), Err(Unauthorized::Header)),
            (Some("Basic fixed"), Err(Unauthorized::Header)),
            (Some("fixed"), Err(Unauthorized::Header)),
        ];
        for (header, want) in rows {
            let seen = authenticator.authenticate(&[], header, everything_lives, now);
            assert_eq!(seen.map(|identity| identity.user), want.map(str::to_owned), "{header:?}");
        }
    }

    #[test]
    fn a_token_dies_with_its_account_and_its_pod() {
        let (_directory, authenticator) = authenticator();
        let now = OffsetDateTime::now_utc();
        let token = token(&authenticator, now);
        for gone in ["serviceaccounts", "pods"] {
            for left in [None, Some("another uid".to_owned())] {
                let live = |object: &Reference<'_>| match object.resource == gone {
                    true => left.clone(),
                    false => everything_lives(object),
                };
                let seen = authenticator.review(&token, &[], live, now).unwrap_err();
                assert!(matches!(seen, Unauthorized::Dead { resource, .. } if resource == gone), "{gone} {seen:?}");
            }
        }
        // The node of a pod may be re-registered while the pod lives.
        let live = |object: &Reference<'_>| (object.resource != "nodes").then(|| everything_lives(object)).flatten();
        let seen = authenticator.review(&token, &[], live, now).unwrap();
        assert_eq!(seen.identity.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(seen.identity.extra["authentication.kubernetes.io/node-name"], ["n"]);
        assert_eq!(seen.identity.uid, "uid of serviceaccounts/shop");
    }

    #[test]
    fn reviews_tell_the_shared_audiences() {
        let (_directory, authenticator) = authenticator();
        let now = OffsetDateTime::now_utc();
        let signed = token(&authenticator, now);
        for (token, asked, want) in [
            (signed.as_str(), vec![], Some(vec!["api"])),
            (&signed, vec!["vault"], Some(vec!["vault"])),
            (&signed, vec!["x", "vault", "api"], Some(vec!["vault", "api"])),
            (&signed, vec!["x"], None),
            ("fixed", vec![], Some(vec!["api", "https://k"])),
            ("fixed", vec!["vault"], None),
        ] {
            let asked: Vec<String> = asked.into_iter().map(str::to_owned).collect();
            let seen = authenticator.review(token, &asked, everything_lives, now).ok();
            let seen = seen.as_ref().map(|accepted| accepted.audiences.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(seen, want, "{asked:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        #[test]
        fn rubbish_proves_nothing(
            token in "[A-Za-z0-9_.-]{0,200}",
            certificate in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let (_directory, authenticator) = authenticator();
            let now = OffsetDateTime::UNIX_EPOCH;
            let header = format!("Bearer {token}");
            assert!(authenticator.authenticate(&[], Some(&header), everything_lives, now).is_err());
            let peer = [CertificateDer::from(certificate)];
            assert!(authenticator.authenticate(&peer, None, everything_lives, now).is_err());
        }
    }
}
