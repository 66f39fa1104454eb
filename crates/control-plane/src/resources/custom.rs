//! What one version of a CustomResourceDefinition adds to its names.

use std::sync::Arc;

use osc_api::{Resource, api_version, table::Printer};
use osc_schema::{JsonPath, Schema};
use serde_json::Value;
use tracing::warn;

use super::Served;

/// Shape and extras of a custom resource in one version.
#[derive(Debug)]
pub struct Custom {
    /// Name of its CustomResourceDefinition.
    pub definition: String,
    /// Structural schema.
    pub schema: Schema,
    /// `apiVersion` of the storage version.
    pub stored_version: String,
    /// Where `scale` reads and writes, if it has that subresource.
    pub scale: Option<ScalePaths>,
}

/// Paths of the scale subresource, as names of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired number.
    pub spec_replicas: Vec<String>,
    /// Observed number.
    pub status_replicas: Vec<String>,
    /// Serialised label selector, if any.
    pub selector: Option<Vec<String>>,
}

impl Custom {
    /// Everything a definition declares; nothing for one that is not usable.
    pub fn served(crd: &Value) -> Vec<Arc<Served>> {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let versions = crd["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let group = crd["spec"]["group"].as_str().unwrap_or_default();
        let storage = versions.iter().find(|version| version["storage"] == true);
        let stored = storage.and_then(|version| version["name"].as_str()).unwrap_or_default();
        let mut served = Vec::new();
        for resource in Resource::from_crd(crd) {
            let Some(version) = versions.iter().find(|version| version["name"] == resource.version.as_str()) else {
                continue;
            };
            let schema = match schema_of(version) {
                Ok(schema) => schema,
                Err(problem) => {
                    // Definitions are checked when written; this one comes from an older program.
                    warn!(
                        crd.name = name,
                        version = resource.version,
                        problem,
                        "schema not usable, version not served"
                    );
                    continue;
                }
            };
            served.push(Arc::new(Served {
                api_version: resource.api_version(),
                printer: Printer::custom(crd, &resource.version),
                resource: Arc::new(resource),
                custom: Some(Self {
                    definition: name.into(),
                    schema,
                    stored_version: api_version(group, stored),
                    scale: ScalePaths::read(&version["subresources"]["scale"]),
                }),
            }));
        }
        served
    }
}

fn schema_of(version: &Value) -> Result<Schema, String> {
    match &version["schema"]["openAPIV3Schema"] {
        Value::Null => Ok(Schema::anything()),
        schema => Schema::from_crd(schema, "openAPIV3Schema")
            .map_err(|causes| causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

impl ScalePaths {
    fn read(declared: &Value) -> Option<Self> {
        let path = |name: &str| names(declared[name].as_str().unwrap_or_default());
        Some(Self {
            spec_replicas: path("specReplicasPath")?,
            status_replicas: path("statusReplicasPath")?,
            selector: path("labelSelectorPath"),
        })
    }
}

/// The fields of a path like `.spec.replicas`; `None` for anything fancier.
fn names(path: &str) -> Option<Vec<String>> {
    let names: Vec<String> = path.strip_prefix('.')?.split('.').map(str::to_owned).collect();
    let plain = |name: &String| !name.is_empty() && !name.contains(['[', ']', '*', '?', '\'']);
    (JsonPath::parse(path).is_ok() && names.iter().all(plain)).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_paths_are_plain_fields() {
        for (path, want) in [
            (".spec.replicas", Some(vec!["spec", "replicas"])),
            ("spec.replicas", None),
            (".spec.items[0]", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(
                names(path),
                want.map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>()),
                "{path}"
            );
        }
    }
}
