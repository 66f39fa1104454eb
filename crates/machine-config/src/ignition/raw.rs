//! Ignition as it is written, versions 2.2 and 3.x alike. What is understood has a
//! field and takes no unknown neighbours; whole sections that are not understood
//! are kept as they are.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

#[derive(Deserialize)]
pub(super) struct RawConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) ignition: RawIgnition,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) storage: RawStorage,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) systemd: RawSystemd,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) passwd: RawPasswd,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct RawIgnition {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) version: String,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct RawStorage {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) files: Vec<Value>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct RawSystemd {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) units: Vec<Value>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct RawPasswd {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) users: Vec<Map<String, Value>>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) path: String,
    /// 2.2 only; `root` is the file system of the node.
    #[serde(default)]
    pub(super) filesystem: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) contents: RawContents,
    #[serde(default)]
    pub(super) mode: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) user: RawId,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) group: RawId,
    #[serde(default)]
    pub(super) overwrite: Option<bool>,
    /// A list of contents since 3.0, a flag before.
    #[serde(default)]
    pub(super) append: Value,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawContents {
    #[serde(default)]
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) compression: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) verification: RawVerification,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVerification {
    #[serde(default)]
    pub(super) hash: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawId {
    #[serde(default)]
    pub(super) id: Option<u32>,
    #[serde(default)]
    pub(super) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUnit {
    pub(super) name: String,
    #[serde(default)]
    pub(super) contents: Option<String>,
    #[serde(default)]
    pub(super) enabled: Option<bool>,
    /// 2.2's older spelling.
    #[serde(default)]
    pub(super) enable: Option<bool>,
    #[serde(default)]
    pub(super) mask: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) dropins: Vec<RawDropin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDropin {
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) contents: String,
}

/// `null` where a list or object may stand means nothing is there.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}
