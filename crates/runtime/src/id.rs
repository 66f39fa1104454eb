//! Checked identifiers. Each becomes a path component and a name in the guest.

use std::{fmt, path::Path};

use osc_agent_protocol::names::valid_id;

/// An identifier that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("identifier {0:?} is not usable: 1 to 128 letters, digits, '_', '.' or '-', beginning with a letter or digit")]
pub struct BadId(pub String);

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `id`.
            ///
            /// # Errors
            /// [`BadId`] when it is empty, too long or has other characters.
            pub fn new(id: impl Into<String>) -> Result<Self, BadId> {
                let id = id.into();
                if valid_id(&id) { Ok(Self(id)) } else { Err(BadId(id)) }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                Path::new(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(id: String) -> Result<Self, BadId> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

identifier!(
    /// A sandbox: one pod, one virtual machine.
    SandboxId
);
identifier!(
    /// A container inside a sandbox.
    ContainerId
);
identifier!(
    /// A process added to a container after its first one.
    ExecId
);
