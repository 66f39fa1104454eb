//! Options of the runtime as an engine passes them: `runtimeoptions.v1.Options`
//! in a protobuf `Any` (1 `type_url`, 2 `config_path`, 3 `config_body`).

use std::path::PathBuf;

use osc_agent_protocol::Kind;
use protobuf::{CodedInputStream, well_known_types::any::Any};

/// Message name of the options, in both of its packages.
const NAMES: [&str; 2] = ["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"];
/// Protobuf tag of field 2, length-delimited.
const CONFIG_PATH: u32 = 2 << 3 | 2;

/// Options that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the options of the runtime are damaged: check ConfigPath of the runtime in the engine's configuration")]
pub struct BadOptions(#[from] protobuf::Error);

impl BadOptions {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// The configuration file `options` names. Options of another type are those of
/// another runtime, set as the engine's default, and name none.
///
/// # Errors
/// [`BadOptions`].
pub fn config_path(options: Option<&Any>) -> Result<Option<PathBuf>, BadOptions> {
    let Some(options) = options else { return Ok(None) };
    let name = options.type_url.rsplit('/').next().unwrap_or_default();
    if !NAMES.contains(&name) {
        return Ok(None);
    }
    let mut input = CodedInputStream::from_bytes(&options.value);
    let mut path = None;
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        if tag == CONFIG_PATH {
            path = Some(input.read_string()?);
        } else {
            skip(&mut input, tag)?;
        }
    }
    Ok(path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

fn skip(input: &mut CodedInputStream<'_>, tag: u32) -> protobuf::Result<()> {
    let mut unknown = protobuf::UnknownFields::new();
    protobuf::rt::read_unknown_or_skip_group(tag, input, &mut unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: &[u8]) -> Any {
        Any { type_url: name.into(), value: value.into(), ..Any::default() }
    }

    #[test]
    fn only_our_kind_of_options_names_a_file() {
        let full = b"\x0a\x03abc\x12\x06/x.cfg\x1a\x02zz";
        let rows = [
            (Some(any("runtimeoptions.v1.Options", full)), Some("/x.cfg")),
            (Some(any("type.googleapis.com/cri.runtimeoptions.v1.Options", full)), Some("/x.cfg")),
            (Some(any("containerd.runc.v1.Options", full)), None),
            (Some(any("runtimeoptions.v1.Options", b"\x0a\x03abc")), None),
            (Some(any("runtimeoptions.v1.Options", b"")), None),
            (None, None),
        ];
        for (options, want) in rows {
            assert_eq!(config_path(options.as_ref()).unwrap(), want.map(PathBuf::from), "{options:?}");
        }
        assert!(config_path(Some(&any("runtimeoptions.v1.Options", b"\x12\x7f"))).is_err());
    }
}
