//! Resources declared by CustomResourceDefinitions.

use serde_json::Value;

use super::{Resource, STORED_VERBS, Subresource};
use crate::value::{array, text};

impl Resource {
    /// The resources a CustomResourceDefinition serves, one for each served version.
    ///
    /// Reads `status.acceptedNames` for what may be shared with others (short names, categories)
    /// and `spec` for the rest; the definition is taken to be valid.
    pub fn from_crd(crd: &Value) -> Vec<Self> {
        let spec = &crd["spec"];
        let names = if crd["status"]["acceptedNames"]["kind"].is_string() {
            &crd["status"]["acceptedNames"]
        } else {
            &spec["names"]
        };
        let kind = text(names, "kind");
        let or = |name: &str, otherwise: String| match text(names, name) {
            "" => otherwise,
            name => name.to_owned(),
        };
        let served = array(spec, "versions").iter().filter(|version| version["served"] == true);
        served
            .map(|version| Self {
                group: text(spec, "group").to_owned(),
                version: text(version, "name").to_owned(),
                plural: text(names, "plural").to_owned(),
                singular: or("singular", kind.to_lowercase()),
                kind: kind.to_owned(),
                list_kind: or("listKind", format!("{kind}List")),
                namespaced: text(spec, "scope") == "Namespaced",
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                verbs: STORED_VERBS.iter().map(|verb| (*verb).to_owned()).collect(),
                subresources: subresources(spec, version, kind),
                definition: None,
            })
            .collect()
    }
}

fn subresources(spec: &Value, version: &Value, kind: &str) -> Vec<Subresource> {
    let declared = &version["subresources"];
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    let mut found = Vec::new();
    if declared["status"].is_object() {
        found.push(Subresource {
            name: "status".to_owned(),
            group: text(spec, "group").to_owned(),
            version: text(version, "name").to_owned(),
            kind: kind.to_owned(),
            verbs: verbs(),
        });
    }
    if declared["scale"].is_object() {
        found.push(Subresource {
            name: "scale".to_owned(),
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
            verbs: verbs(),
        });
    }
    found
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_served_version_is_a_resource() {
        let crd = json!({
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]},
                "versions": [
                    {"name": "v1", "served": true, "subresources": {"status": {}, "scale": {}}},
                    {"name": "v1beta1", "served": false},
                ],
            },
        });
        let resources = Resource::from_crd(&crd);
        let [widget] = resources.as_slice() else { panic!("{resources:?}") };
        assert_eq!(widget.qualified(), "widgets.example.com");
        assert_eq!((widget.singular.as_str(), widget.list_kind.as_str()), ("widget", "WidgetList"));
        assert!(widget.subresource("status").is_some() && widget.is_custom());
        assert_eq!(widget.subresource("scale").map(|scale| scale.kind.as_str()), Some("Scale"));
        assert_eq!(Resource::from_crd(&json!({})), []);
    }
}
