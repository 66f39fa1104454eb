//! The `spec` of a MachineConfig, checked.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ignition::{self, Config, IgnitionError};

/// Everything one MachineConfig says about a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// Files, units, users.
    pub ignition: Config,
    /// Operating system image; empty: the one the cluster ships.
    pub os_image_url: String,
    /// Image with packages for [`extensions`](Self::extensions).
    pub extensions_image: String,
    /// Appended to the kernel command line, in order.
    pub kernel_arguments: Vec<String>,
    /// Names of packages, in order.
    pub extensions: Vec<String>,
    /// Whether the node runs in FIPS mode.
    pub fips: bool,
    /// Which kernel.
    pub kernel: Kernel,
}

/// Kinds of kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The distribution's.
    #[default]
    Default,
    /// With the real-time patches.
    Realtime,
    /// For large pages.
    Pages64k,
}

impl Kernel {
    /// As written in `kernelType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Realtime => "realtime",
            Self::Pages64k => "64k-pages",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::Default),
            _ => [Self::Default, Self::Realtime, Self::Pages64k].into_iter().find(|kernel| kernel.as_str() == text),
        }
    }
}

/// A `spec` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A field has the wrong shape.
    #[error("unusable spec: correct the MachineConfig")]
    Shape(#[source] serde_json::Error),
    /// The Ignition part is wrong.
    #[error("spec.config")]
    Ignition(#[from] IgnitionError),
    /// An unknown kernel.
    #[error("spec.kernelType `{0}` is unknown; allowed are default, realtime, 64k-pages")]
    Kernel(String),
    /// A kernel argument that would become several, or none.
    #[error("spec.kernelArguments: {0:?} holds a line break or nothing")]
    KernelArgument(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    config: Value,
    #[serde(default, rename = "osImageURL")]
    os_image_url: Option<String>,
    #[serde(default, rename = "baseOSExtensionsContainerImage")]
    base_os_extensions_container_image: Option<String>,
    #[serde(default)]
    kernel_arguments: Option<Vec<String>>,
    #[serde(default)]
    extensions: Option<Vec<String>>,
    #[serde(default)]
    fips: Option<bool>,
    #[serde(default)]
    kernel_type: Option<String>,
}

impl Spec {
    /// Reads the `spec` of a MachineConfig.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(spec: &Value) -> Result<Self, SpecError> {
        if spec.is_null() {
            return Ok(Self::default());
        }
        let raw: Raw = serde_json::from_value(spec.clone()).map_err(SpecError::Shape)?;
        let kernel_type = raw.kernel_type.unwrap_or_default();
        let kernel_arguments = raw.kernel_arguments.unwrap_or_default();
        if let Some(bad) = kernel_arguments.iter().find(|text| text.trim().is_empty() || text.contains(['\n', '\0'])) {
            return Err(SpecError::KernelArgument(bad.clone()));
        }
        Ok(Self {
            ignition: ignition::parse(&raw.config)?,
            os_image_url: raw.os_image_url.unwrap_or_default(),
            extensions_image: raw.base_os_extensions_container_image.unwrap_or_default(),
            kernel_arguments,
            extensions: raw.extensions.unwrap_or_default(),
            fips: raw.fips.unwrap_or_default(),
            kernel: Kernel::parse(&kernel_type).ok_or(SpecError::Kernel(kernel_type))?,
        })
    }

    /// The `spec` of a MachineConfig that says the same.
    pub fn to_value(&self) -> Value {
        let mut out = json!({
            "config": self.ignition.to_value(),
            "extensions": self.extensions,
            "fips": self.fips,
            "kernelArguments": self.kernel_arguments,
            "kernelType": self.kernel.as_str(),
            "osImageURL": self.os_image_url,
        });
        if !self.extensions_image.is_empty() {
            out["baseOSExtensionsContainerImage"] = json!(self.extensions_image);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_read_and_written_alike() {
        let spec = Spec::parse(&json!({"kernelArguments": ["a=1", "a=1"], "extensions": null, "kernelType": "realtime",
            "fips": true, "osImageURL": "x", "baseOSExtensionsContainerImage": "y", "config": {"ignition": {"version": "3.2.0"}}}))
        .unwrap();
        assert_eq!(spec.kernel_arguments, ["a=1", "a=1"]);
        assert_eq!(Spec::parse(&spec.to_value()).unwrap(), spec);
        assert_eq!(Spec::parse(&Value::Null).unwrap(), Spec::default());
    }

    #[test]
    fn mistakes_are_refused() {
        for (value, want) in [
            (json!({"kernelType": "fast"}), "spec.kernelType `fast` is unknown"),
            (json!({"kernelArguments": ["a\nb"]}), "spec.kernelArguments"),
            (json!({"fips": "yes"}), "unusable spec"),
            (json!({"config": {"ignition": {"version": "9.9.9"}}}), "spec.config"),
        ] {
            let error = Spec::parse(&value).unwrap_err().to_string();
            assert!(error.starts_with(want), "{value}: {error}");
        }
    }
}
