//! Sandbox, container of a sandbox, or a container on its own.

use std::collections::HashMap;

use osc_agent_protocol::Kind;

use crate::id::{BadId, ContainerId, SandboxId};

/// Annotation keys of one container engine.
struct Engine {
    kind: &'static str,
    sandbox_id: &'static str,
    pod: &'static str,
    namespace: &'static str,
    container: &'static str,
    image: &'static str,
}

/// The engines, in order of preference.
const ENGINES: [Engine; 3] = [
    Engine {
        kind: "io.kubernetes.cri.container-type",
        sandbox_id: "io.kubernetes.cri.sandbox-id",
        pod: "io.kubernetes.cri.sandbox-name",
        namespace: "io.kubernetes.cri.sandbox-namespace",
        container: "io.kubernetes.cri.container-name",
        image: "io.kubernetes.cri.image-name",
    },
    Engine {
        kind: "io.kubernetes.cri-o.ContainerType",
        sandbox_id: "io.kubernetes.cri-o.SandboxID",
        pod: "io.kubernetes.cri-o.KubeName",
        namespace: "io.kubernetes.cri-o.Namespace",
        container: "io.kubernetes.cri-o.ContainerName",
        image: "io.kubernetes.cri-o.ImageName",
    },
    Engine {
        kind: "io.kubernetes.docker.type",
        sandbox_id: "io.kubernetes.sandbox.id",
        pod: "io.kubernetes.pod.name",
        namespace: "io.kubernetes.pod.namespace",
        container: "io.kubernetes.container.name",
        image: "io.kubernetes.container.image",
    },
];

/// What a container is to its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodKind {
    /// The pod itself: its first container (pause), which brings the virtual machine.
    Sandbox,
    /// A further container of the pod `sandbox`.
    Container {
        /// The pod.
        sandbox: SandboxId,
    },
    /// A container that nobody put in a pod; it is its own sandbox.
    Single,
}

/// Annotations that contradict themselves.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// An unknown container type.
    #[error("annotation {key} = {value:?}: must be \"sandbox\" or \"container\"")]
    Type {
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A container of no sandbox.
    #[error("annotation {key} is missing although the container belongs to a pod")]
    NoSandbox {
        /// The annotation.
        key: &'static str,
    },
    /// A sandbox id that cannot be used.
    #[error("annotation {key} does not name a sandbox")]
    Sandbox {
        /// The annotation.
        key: &'static str,
        /// Why.
        source: BadId,
    },
}

impl KindError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl PodKind {
    /// Classifies a container by the annotations of containerd, CRI-O or dockershim.
    ///
    /// # Errors
    /// Annotations that name an unknown type or no usable sandbox.
    pub fn classify(annotations: &HashMap<String, String>) -> Result<Self, KindError> {
        let Some((engine, value)) = ENGINES.iter().find_map(|e| annotations.get(e.kind).map(|value| (e, value))) else {
            return Ok(Self::Single);
        };
        match value.as_str() {
            // dockershim says podsandbox.
            "sandbox" | "podsandbox" => Ok(Self::Sandbox),
            "container" => {
                let key = engine.sandbox_id;
                let id = annotations.get(key).ok_or(KindError::NoSandbox { key })?;
                let sandbox = SandboxId::new(id.as_str()).map_err(|source| KindError::Sandbox { key, source })?;
                Ok(Self::Container { sandbox })
            }
            _ => Err(KindError::Type { key: engine.kind, value: value.clone() }),
        }
    }

    /// The sandbox that container `id` of this kind lives in.
    ///
    /// # Errors
    /// Never for an id that was checked; both identifiers follow the same rule.
    pub fn sandbox_id(&self, id: &ContainerId) -> Result<SandboxId, BadId> {
        match self {
            Self::Sandbox | Self::Single => SandboxId::new(id.as_str()),
            Self::Container { sandbox } => Ok(sandbox.clone()),
        }
    }

    /// The value of the annotation `io.katacontainers.pkg.oci.container_type`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sandbox => "pod_sandbox",
            Self::Container { .. } => "pod_container",
            Self::Single => "single_container",
        }
    }
}

/// Names people know a container by, for logs and metrics; empty when unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Pod name.
    pub pod: String,
    /// Pod namespace.
    pub namespace: String,
    /// Container name.
    pub container: String,
    /// Image name.
    pub image: String,
}

impl Names {
    /// Reads the names from the annotations of whichever engine wrote them.
    pub fn read(annotations: &HashMap<String, String>) -> Self {
        let first = |key: fn(&Engine) -> &'static str| {
            ENGINES.iter().find_map(|engine| annotations.get(key(engine))).cloned().unwrap_or_default()
        };
        Self {
            pod: first(|e| e.pod),
            namespace: first(|e| e.namespace),
            container: first(|e| e.container),
            image: first(|e| e.image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: &[(&str, &str)]) -> HashMap<String, String> {
        rows.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn engines_say_what_a_container_is() {
        let member = || PodKind::Container { sandbox: SandboxId::new("s1").unwrap() };
        let rows: &[(&[(&str, &str)], PodKind)] = &[
            (&[], PodKind::Single),
            (&[("io.kubernetes.cri.container-type", "sandbox")], PodKind::Sandbox),
            (&[("io.kubernetes.cri.container-type", "container"), ("io.kubernetes.cri.sandbox-id", "s1")], member()),
            (&[("io.kubernetes.cri-o.ContainerType", "sandbox")], PodKind::Sandbox),
            (&[("io.kubernetes.cri-o.ContainerType", "container"), ("io.kubernetes.cri-o.SandboxID", "s1")], member()),
            (&[("io.kubernetes.docker.type", "podsandbox")], PodKind::Sandbox),
            (&[("io.kubernetes.docker.type", "container"), ("io.kubernetes.sandbox.id", "s1")], member()),
        ];
        for (annotations, want) in rows {
            assert_eq!(PodKind::classify(&map(annotations)).unwrap(), *want, "{annotations:?}");
        }
    }

    #[test]
    fn contradictions_are_errors() {
        for annotations in [
            &[("io.kubernetes.cri.container-type", "pod")][..],
            &[("io.kubernetes.cri.container-type", "container")],
            &[("io.kubernetes.cri.container-type", "container"), ("io.kubernetes.cri.sandbox-id", "../x")],
        ] {
            assert!(PodKind::classify(&map(annotations)).is_err(), "{annotations:?}");
        }
    }

    #[test]
    fn a_container_outside_a_pod_is_its_own_sandbox() {
        let id = ContainerId::new("c1").unwrap();
        assert_eq!(PodKind::Single.sandbox_id(&id).unwrap().as_str(), "c1");
        let member = PodKind::Container { sandbox: SandboxId::new("s1").unwrap() };
        assert_eq!(member.sandbox_id(&id).unwrap().as_str(), "s1");
    }

    #[test]
    fn names_come_from_either_engine() {
        let names = Names::read(&map(&[
            ("io.kubernetes.cri-o.KubeName", "p"),
            ("io.kubernetes.cri-o.Namespace", "n"),
            ("io.kubernetes.cri.container-name", "c"),
        ]));
        assert_eq!(
            names,
            Names { pod: "p".into(), namespace: "n".into(), container: "c".into(), image: String::new() }
        );
    }
}
