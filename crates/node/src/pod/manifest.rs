//! Reading manifests: one or several documents of YAML or JSON.

use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde_json::Value;

use super::{
    check,
    fields::{unknown, unused},
    model::Pod,
    problem::{ManifestError, Problems},
};

/// Larger files are not manifests.
const MAX_SIZE: usize = 1 << 20;

/// A manifest that was understood: what was given, to be stored, and the checked
/// pod.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The object as given.
    pub given: Value,
    /// The pod it describes.
    pub pod: Pod,
}

impl Manifest {
    /// Checks one object; `name` stands for it in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(name: &str, given: Value) -> Result<Self, ManifestError> {
        let mut problems = Problems::default();
        let pod = understand(&given, &mut problems);
        match pod {
            Some(pod) if problems.found.is_empty() => Ok(Self { given, pod }),
            _ => Err(ManifestError { name: name.to_owned(), problems: problems.found }),
        }
    }

    /// Understands a pod an API server has accepted: fields that are not known
    /// here do not matter, and what needs a cluster can be had.
    ///
    /// # Errors
    /// What cannot be run on this node.
    pub fn of_cluster(given: Value) -> Result<Self, ManifestError> {
        let mut problems = Problems { in_cluster: true, ..Problems::default() };
        let name = given["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let pod = match core::Pod::deserialize(&given) {
            Ok(typed) => check::pod(&typed, &mut problems),
            Err(error) => {
                problems.add("pod", error.to_string());
                None
            }
        };
        match pod {
            Some(pod) if problems.found.is_empty() => Ok(Self { given, pod }),
            _ => Err(ManifestError { name, problems: problems.found }),
        }
    }

    /// Reads all documents of a file.
    ///
    /// # Errors
    /// What is wrong with the first document that cannot be used.
    pub fn read(name: &str, text: &str) -> Result<Vec<Self>, ManifestError> {
        let failed = |reason: String| {
            let mut problems = Problems::default();
            problems.add("file", reason);
            ManifestError { name: name.to_owned(), problems: problems.found }
        };
        if text.len() > MAX_SIZE {
            return Err(failed(format!("{} bytes are more than the {MAX_SIZE} a manifest may have", text.len())));
        }
        let mut manifests: Vec<Self> = Vec::new();
        for (number, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
            let value = Value::deserialize(document).map_err(|error| failed(error.to_string()))?;
            if value.is_null() {
                continue; // an empty document, as after a last `---`
            }
            let label = if number == 0 { name.to_owned() } else { format!("{name} (document {})", number + 1) };
            let manifest = Self::new(&label, value)?;
            if manifests.iter().any(|other| other.pod.full_name() == manifest.pod.full_name()) {
                return Err(failed(format!("pod {} is there twice", manifest.pod.full_name())));
            }
            manifests.push(manifest);
        }
        if manifests.is_empty() { Err(failed("there is no object in it".into())) } else { Ok(manifests) }
    }
}

fn understand(given: &Value, problems: &mut Problems) -> Option<Pod> {
    let kind = [&given["apiVersion"], &given["kind"]].map(|value| value.as_str().unwrap_or_default());
    if kind != ["v1", "Pod"] {
        problems.add("kind", format!("{:?} {:?} cannot be run here, only apiVersion v1, kind Pod", kind[0], kind[1]));
        return None;
    }
    let typed = match core::Pod::deserialize(given) {
        Ok(typed) => typed,
        Err(error) => {
            problems.add("pod", error.to_string());
            return None;
        }
    };
    let understood = serde_json::to_value(&typed).unwrap_or_default();
    for path in unknown(given, &understood) {
        problems.add(path, "no such field");
    }
    let unused = unused(&understood);
    for path in unused.refused {
        problems.add(path, "not supported without a cluster; remove it");
    }
    let mut pod = check::pod(&typed, problems)?;
    pod.ignored = unused.ignored;
    pod.ignored.append(&mut problems.ignored);
    Some(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let error = Manifest::read("test", text).expect_err("must be refused");
        error.problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn several_documents_are_several_pods() {
        let one = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
            )
        };
        let text = format!("---\n{}---\n{}---\n", one("a"), one("b"));
        let names: Vec<_> = Manifest::read("test", &text).expect("both").into_iter().map(|m| m.pod.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(paths(&format!("{}---\n{}", one("a"), one("a"))), ["file"]);
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for (text, path) in [
            ("", "file"),
            ("a: [", "file"),
            ("apiVersion: apps/v1\nkind: Deployment\n", "kind"),
            ("apiVersion: v1\nkind: Pod\nspec: 3\n", "pod"),
        ] {
            assert_eq!(paths(text), [path], "{text}");
        }
    }

    #[test]
    fn pods_of_a_subdomain_have_a_full_name() {
        let sub = "s".repeat(40);
        for (spec, want) in [
            (json!({}), Ok(("web-0", None))),
            (json!({"subdomain": "web"}), Ok(("web-0", Some("web-0.web.shop.svc.cluster.local")))),
            (
                json!({"subdomain": "web", "hostname": "h", "setHostnameAsFQDN": true}),
                Ok(("h.web.shop.svc.cluster.local", Some("h.web.shop.svc.cluster.local"))),
            ),
            (json!({"subdomain": sub, "setHostnameAsFQDN": true}), Err("spec.setHostnameAsFQDN")),
        ] {
            let mut pod = json!({"metadata": {"name": "web-0", "namespace": "shop", "uid": "u"}, "spec": spec.clone()});
            pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
            let got = Manifest::of_cluster(pod);
            let got = got.as_ref().map(|m| (m.pod.hostname.as_str(), m.pod.full_hostname.as_deref()));
            assert_eq!(got.map_err(|error| error.problems[0].path.as_str()), want, "{spec}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "
apiVersion: v1
kind: Pod
metadata: {name: Bad_Name}
spec:
  restartPolicy: Sometimes
  hostPID: true
  containers:
  - name: a
    image: ''
    imagePullPolicyy: Never
    livenessProbe: {exec: {command: [x]}}
    envFrom: [{configMapRef: {name: x}}]
    volumeMounts: [{name: nothing, mountPath: relative}]
";
        let mut found = paths(text);
        found.sort();
        assert_eq!(
            found,
            [
                "metadata.name",
                "spec.containers[0].envFrom",
                "spec.containers[0].image",
                "spec.containers[0].imagePullPolicyy",
                "spec.containers[0].volumeMounts[0].mountPath",
                "spec.containers[0].volumeMounts[0].name",
                "spec.hostPID",
                "spec.restartPolicy",
            ]
        );
    }
}
