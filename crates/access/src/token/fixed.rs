//! Fixed bearer tokens, from a file of lines `token,user,uid,"group1,group2"`.

use ring::digest::{Digest, SHA256, digest};

use crate::identity::Identity;

/// Bearer tokens that do not end.
#[derive(Default)]
pub struct FixedTokens {
    known: Vec<(Digest, Identity)>,
}

impl std::fmt::Debug for FixedTokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FixedTokens").field("count", &self.known.len()).finish()
    }
}

/// A line of the token file is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the token file must be: token,user,uid[,\"group1,group2\"]")]
pub struct BadTokenFile {
    /// Number of the line, from 1.
    pub line: usize,
}

impl FixedTokens {
    /// Reads the lines of a token file; empty ones and those beginning with `#` are skipped.
    pub fn parse(text: &str) -> Result<FixedTokens, BadTokenFile> {
        let mut tokens = FixedTokens::default();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.splitn(4, ',').map(str::trim);
            let (Some(token), Some(user), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(BadTokenFile { line: index + 1 });
            };
            if token.is_empty() || user.is_empty() {
                return Err(BadTokenFile { line: index + 1 });
            }
            let groups = fields.next().unwrap_or_default().trim_matches('"').split(',').map(str::trim);
            let identity = Identity::new(user, groups.filter(|group| !group.is_empty()));
            tokens.add(token, Identity { uid: uid.to_owned(), ..identity });
        }
        Ok(tokens)
    }

    /// Accepts one more token.
    pub fn add(&mut self, token: &str, identity: Identity) {
        self.known.push((digest(&SHA256, token.as_bytes()), identity));
    }

    /// Whose token this is. Digests are compared, all of them: how long it takes says nothing about any token.
    pub fn find(&self, token: &str) -> Option<&Identity> {
        let shown = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for (known, identity) in &self.known {
            if known.as_ref() == shown.as_ref() {
                found = Some(identity);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_identities() {
        let tokens = FixedTokens::parse("# people\n\nsecret,jane,u1,\"dev,ops\"\nother,bob,u2\n").unwrap();
        let jane = tokens.find("secret").unwrap();
        assert_eq!((jane.user.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.find("other").unwrap().groups, ["system:authenticated"]);
        assert!(tokens.find("secre").is_none() && tokens.find("").is_none());
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line) in [("token", 1), ("a,b,c\n,user,uid", 2), ("token,,uid", 1)] {
            assert_eq!(FixedTokens::parse(text).unwrap_err(), BadTokenFile { line }, "{text}");
        }
    }
}
