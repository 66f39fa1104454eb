//! The command line container engines use to talk to a shim: flags in the style
//! of Go's `flag` package, then one action.

use std::{ffi::OsString, path::PathBuf};

use osc_agent_protocol::Kind;

/// What the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve tasks on the inherited socket.
    Serve,
    /// Start a serving process, or name the one that already serves the pod.
    Start,
    /// Remove what a dead shim left behind.
    Delete,
    /// Make a template of virtual machines: a shim asks itself for it.
    Template,
    /// Print the version.
    Version,
    /// Print what the runtime is, as a protobuf `RuntimeInfo`.
    Info,
}

/// The parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// Engine namespace the container lives in.
    pub namespace: String,
    /// Address of the engine.
    pub address: String,
    /// Container id.
    pub id: String,
    /// Bundle; the working directory when not given.
    pub bundle: Option<PathBuf>,
    /// Log more.
    pub debug: bool,
    /// What template to make.
    pub order: String,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// No such flag.
    #[error("flag {0:?} is not known; this program is started by a container engine")]
    UnknownFlag(String),
    /// The value of a flag is missing.
    #[error("flag {0:?} needs a value")]
    NoValue(String),
    /// No such action.
    #[error("action {0:?} is not known; use start or delete")]
    UnknownAction(String),
    /// An argument is not UTF-8.
    #[error("argument {0:?} is not valid UTF-8")]
    NotText(OsString),
}

impl ArgsError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// Parses the arguments after the program name.
///
/// # Errors
/// [`ArgsError`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, ArgsError> {
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().map(|raw| raw.into_string().map_err(ArgsError::NotText)).transpose();
    let mut args = Args {
        action: Action::Serve,
        namespace: String::new(),
        address: String::new(),
        id: String::new(),
        bundle: None,
        debug: false,
        order: String::new(),
    };
    while let Some(argument) = next()? {
        let Some(flag) = argument.strip_prefix('-') else {
            args.action = match argument.as_str() {
                "start" => Action::Start,
                "delete" => Action::Delete,
                "template" => {
                    args.order = next()?.ok_or_else(|| ArgsError::NoValue(argument.clone()))?;
                    Action::Template
                }
                _ => return Err(ArgsError::UnknownAction(argument)),
            };
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, inline) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        match name {
            "debug" => args.debug = inline != Some("false"),
            "v" | "version" => args.action = Action::Version,
            "info" => args.action = Action::Info,
            "namespace" | "address" | "id" | "bundle" | "publish-binary" | "socket" => {
                let value = match inline {
                    Some(value) => value.to_owned(),
                    None => next()?.ok_or_else(|| ArgsError::NoValue(argument.clone()))?,
                };
                match name {
                    "namespace" => args.namespace = value,
                    "address" => args.address = value,
                    "id" => args.id = value,
                    "bundle" => args.bundle = Some(value.into()),
                    // Events go out over ttrpc, and the socket path is ours to choose.
                    _ => {}
                }
            }
            _ => return Err(ArgsError::UnknownFlag(argument)),
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn engines_are_understood() {
        let args = parsed(
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id c1 -bundle /b -debug delete",
        );
        let want = Args {
            action: Action::Delete,
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            id: "c1".into(),
            bundle: Some("/b".into()),
            debug: true,
            order: String::new(),
        };
        assert_eq!(args.unwrap(), want);
        for (line, want) in [
            ("", Action::Serve),
            ("--id=c1 start", Action::Start),
            ("--version", Action::Version),
            ("-v", Action::Version),
            ("-info", Action::Info),
            ("-address /run/c.sock template {}", Action::Template),
        ] {
            assert_eq!(parsed(line).unwrap().action, want, "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["-colour red", "-id", "restart", "template"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
