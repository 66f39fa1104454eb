//! Bearer tokens: signed ones for service accounts, fixed ones from a file.
//!
//! A service account's token is a JWT (RFC 7519) signed with ES256. It may be bound to a pod or node: whoever
//! accepts it must also see that the account and the pod still live, which [`crate::Authenticator`] does.

mod claims;
mod fixed;

pub use claims::{Claims, Kubernetes, Named, Reference};
pub use fixed::{BadTokenFile, FixedTokens};

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::files;
use crate::identity;

/// Tokens live at least this long: renewing them more often helps nobody.
pub const SHORTEST: Duration = Duration::minutes(10);
/// Tokens live at most this long; longer wishes are cut.
pub const LONGEST: Duration = Duration::days(365);
/// Longest token looked at; ours stay below 2 KiB.
const LARGEST: usize = 16 << 10;

/// Signs and verifies the tokens of service accounts.
pub struct Signer {
    issuer: String,
    key_id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    /// Uncompressed point: 4, x, y.
    public: Vec<u8>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Whom a token speaks for, and to whom.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Namespace of the account.
    pub namespace: &'a str,
    /// The account.
    pub account: Named,
    /// The pod the token dies with.
    pub pod: Option<Named>,
    /// The node that pod runs on.
    pub node: Option<Named>,
    /// The secret the token dies with.
    pub secret: Option<Named>,
    /// Who may accept it; empty: this API server.
    pub audiences: Vec<String>,
    /// How long it lives.
    pub lifetime: Duration,
}

/// A signed token.
#[derive(Clone)]
pub struct Token {
    /// The token itself: a secret.
    pub text: String,
    /// When it ends.
    pub expires: OffsetDateTime,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key file cannot be read or written.
    #[error("cannot access token key {}: check its permissions and the disk", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key file holds no key.
    #[error("token key {} is damaged: restore it, or remove it and restart every pod", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// The lifetime is below [`SHORTEST`].
    #[error("may not specify a duration less than 10 minutes")]
    TooShort,
    /// The system's cryptography failed.
    #[error("cannot sign a token: the system's cryptography is not usable")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a token is not accepted. Never shown to the client, who could learn from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not a token of this issuer, or changed on the way.
    #[error("token is malformed or its signature is not ours")]
    Malformed,
    /// Too late.
    #[error("token ended {0}")]
    Expired(OffsetDateTime),
    /// Too early.
    #[error("token is not valid yet")]
    NotYet,
    /// Meant for others.
    #[error("token is for other audiences: {0:?}")]
    Audience(Vec<String>),
}

impl Signer {
    /// Loads the signing key at `path`, creating it the first time. `issuer` is the URL named in every token.
    pub fn open(path: &Path, issuer: &str) -> Result<Signer, TokenError> {
        let file = |source| TokenError::File { path: path.to_owned(), source };
        let damaged = |source| TokenError::Damaged { path: path.to_owned(), source };
        let key = match files::read_if_present(path).map_err(file)? {
            Some(pem) => KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256).map_err(damaged)?,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                    .map_err(|source| TokenError::Sign(Box::new(source)))?;
                files::replace(path, key.serialize_pem().as_bytes()).map_err(file)?;
                key
            }
        };
        let public = key.public_key_raw().to_vec();
        Ok(Signer {
            issuer: issuer.to_owned(),
            key_id: URL_SAFE_NO_PAD.encode(digest(&SHA256, &public)),
            signing: EncodingKey::from_ec_der(key.serialized_der()),
            verifying: DecodingKey::from_ec_der(&public),
            public,
        })
    }

    /// The URL named as issuer, which is also the audience of the API server.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token.
    pub fn issue(&self, request: &Request<'_>, now: OffsetDateTime) -> Result<Token, TokenError> {
        if request.lifetime < SHORTEST {
            return Err(TokenError::TooShort);
        }
        let expires = now + request.lifetime.min(LONGEST);
        let audiences =
            if request.audiences.is_empty() { vec![self.issuer.clone()] } else { request.audiences.clone() };
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: identity::Identity::service_account(request.namespace, &request.account.name, "").user,
            aud: audiences,
            exp: expires.unix_timestamp(),
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp(),
            jti: random_id()?,
            kubernetes: Kubernetes {
                namespace: request.namespace.to_owned(),
                account: request.account.clone(),
                pod: request.pod.clone(),
                node: request.node.clone(),
                secret: request.secret.clone(),
            },
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let text = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|source| TokenError::Sign(Box::new(source)))?;
        Ok(Token { text, expires })
    }

    /// Checks signature, issuer, times, and that the token is for one of `audiences`. Whether account and pod still
    /// live is the caller's to see.
    pub fn verify(&self, token: &str, audiences: &[String], now: OffsetDateTime) -> Result<Claims, Rejected> {
        if token.len() > LARGEST {
            return Err(Rejected::Malformed);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // Times and audiences are checked below: against the caller's clock, and with the reason kept apart.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation)
            .map_err(|_| Rejected::Malformed)?
            .claims;
        if claims.exp <= now.unix_timestamp() {
            let ended = OffsetDateTime::from_unix_timestamp(claims.exp).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            return Err(Rejected::Expired(ended));
        }
        if claims.nbf > now.unix_timestamp() {
            return Err(Rejected::NotYet);
        }
        if !claims.aud.iter().any(|audience| audiences.contains(audience)) {
            return Err(Rejected::Audience(claims.aud));
        }
        Ok(claims)
    }

    /// The public key as a JSON Web Key Set (RFC 7517), for those who verify tokens themselves.
    pub fn key_set(&self) -> Value {
        let (x, y) = self.public[1..].split_at(32);
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }
}

/// A random UUID (RFC 9562, version 4).
fn random_id() -> Result<String, TokenError> {
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| TokenError::Sign("no random numbers from the system".into()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let text = format!("{number:032x}");
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> (tempfile::TempDir, Signer) {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(&directory.path().join("sa.key"), "https://kubernetes.default.svc").unwrap();
        (directory, signer)
    }

    fn request() -> Request<'static> {
        Request {
            namespace: "web",
            account: Named::new("shop", "u1"),
            pod: Some(Named::new("shop-0", "u2")),
            node: Some(Named::new("n1", "u3")),
            secret: None,
            audiences: vec![],
            lifetime: Duration::hours(1),
        }
    }

    #[test]
    fn a_token_says_what_was_asked() {
        let (directory, signer) = signer();
        let now = OffsetDateTime::now_utc();
        let token = signer.issue(&request(), now).unwrap();
        assert_eq!((token.expires - now).whole_minutes(), 60);
        let reopened = Signer::open(&directory.path().join("sa.key"), signer.issuer()).unwrap();
        let claims = reopened.verify(&token.text, &[signer.issuer().to_owned()], now).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:web:shop");
        assert_eq!(claims.kubernetes.pod, Some(Named::new("shop-0", "u2")));
        assert_eq!(claims.aud, [signer.issuer()]);
        assert_eq!(claims.jti.len(), 36);
    }

    #[test]
    fn bad_tokens_are_rejected_for_the_right_reason() {
        let (_directory, signer) = signer();
        let (_other_directory, other) = self::signer();
        let own = vec![signer.issuer().to_owned()];
        let now = OffsetDateTime::now_utc();
        let good = signer.issue(&request(), now).unwrap().text;
        let ends = now + Duration::hours(1);
        let mut changed: Vec<&str> = good.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://kubernetes.default.svc"}"#);
        changed[1] = &forged;
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), good.split('.').nth(1).unwrap());
        let vault = signer.issue(&Request { audiences: vec!["vault".into()], ..request() }, now).unwrap().text;
        let at = |now| (own.clone(), now);
        let rows = [
            ("good", good.clone(), at(now), Ok(())),
            ("last second", good.clone(), at(ends - Duration::seconds(1)), Ok(())),
            ("late", good.clone(), at(ends), Err(Rejected::Expired(ends.replace_nanosecond(0).unwrap()))),
            ("early", good.clone(), at(now - Duration::minutes(1)), Err(Rejected::NotYet)),
            ("audience", vault.clone(), at(now), Err(Rejected::Audience(vec!["vault".into()]))),
            ("own audience", vault, (vec!["vault".into()], now), Ok(())),
            ("no audience", good.clone(), (vec![], now), Err(Rejected::Audience(own.clone()))),
            ("changed", changed.join("."), at(now), Err(Rejected::Malformed)),
            ("unsigned", unsigned, at(now), Err(Rejected::Malformed)),
            ("foreign", other.issue(&request(), now).unwrap().text, at(now), Err(Rejected::Malformed)),
            ("long", "x".repeat(LARGEST + 1), at(now), Err(Rejected::Malformed)),
            ("empty", String::new(), at(now), Err(Rejected::Malformed)),
            ("dots", "..".to_owned(), at(now), Err(Rejected::Malformed)),
        ];
        for (case, token, (audiences, now), want) in rows {
            assert_eq!(signer.verify(&token, &audiences, now).map(|_| ()), want, "{case}");
        }
    }

    #[test]
    fn lifetimes_have_a_floor_and_a_ceiling() {
        let (_directory, signer) = signer();
        let now = OffsetDateTime::now_utc();
        let short = Request { lifetime: Duration::seconds(599), ..request() };
        assert!(matches!(signer.issue(&short, now), Err(TokenError::TooShort)));
        let long = Request { lifetime: Duration::days(10_000), ..request() };
        assert_eq!(signer.issue(&long, now).unwrap().expires, now + LONGEST);
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sa.key");
        std::fs::write(&path, "rubbish").unwrap();
        assert!(matches!(Signer::open(&path, "x"), Err(TokenError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"rubbish");
    }

    #[test]
    fn the_key_set_verifies_tokens() {
        let (_directory, signer) = signer();
        let token = signer.issue(&request(), OffsetDateTime::now_utc()).unwrap().text;
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(signer.key_set()).unwrap();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[signer.issuer()]);
        jsonwebtoken::decode::<Claims>(&token, &key, &validation).unwrap();
    }
}
