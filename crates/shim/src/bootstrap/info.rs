//! What the runtime says about itself.

use containerd_shim_protos::{
    protobuf::{Message, MessageField},
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

/// Runtime type engines configure.
const NAME: &str = "io.containerd.kata.v2";

/// One line for `--version`.
pub fn version() -> String {
    format!("containerd-shim-kata-v2 {}", env!("CARGO_PKG_VERSION"))
}

/// The message for `-info`, encoded.
pub fn runtime_info() -> Vec<u8> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let info = RuntimeInfo { name: NAME.into(), version: MessageField::some(version), ..Default::default() };
    info.write_to_bytes().expect("messages without required fields can be encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_names_itself() {
        let info = RuntimeInfo::parse_from_bytes(&runtime_info()).unwrap();
        assert_eq!(info.name, "io.containerd.kata.v2");
        assert!(version().ends_with(&info.version.version));
    }
}
