//! What can go wrong between a manifest and a running pod.

use std::{io, path::PathBuf, time::Duration};

use osc_agent_protocol::Kind;

use super::problem::ManifestError;
use crate::{cri::CriError, engine::EngineError};

/// A failure to run, find or delete a pod.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A pod of that name exists.
    #[error("pod {name} exists already{}: delete it with `osc down {name}`", if *.differs { " and differs" } else { "" })]
    Exists {
        /// `namespace/name`.
        name: String,
        /// Whether its manifest is another one.
        differs: bool,
    },
    /// No pod of that name exists.
    #[error("there is no pod {0}: see `osc ps`")]
    NotFound(String),
    /// Several pods are meant.
    #[error("{name} is ambiguous: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it can mean.
        candidates: Vec<String>,
    },
    /// The pod has no such container, or none that fits.
    #[error("pod {pod} has no container {container:?} {wanted}; it has {}", has.join(", "))]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// What it should be like.
        wanted: &'static str,
        /// The containers there are.
        has: Vec<String>,
    },
    /// An image is missing and may not, or cannot, be fetched.
    #[error("image {image} {reason}: load it with `--image-archive FILE`, see `osc image build`")]
    Image {
        /// The image.
        image: String,
        /// What is wrong.
        reason: &'static str,
        /// Why it could not be fetched.
        source: Option<CriError>,
    },
    /// The image would run as root.
    #[error("image {image} of container {container} would run as {user}, which runAsNonRoot forbids: set runAsUser")]
    Root {
        /// The image.
        image: String,
        /// The container.
        container: String,
        /// Its user.
        user: String,
    },
    /// The pod asks for something its runtime cannot do.
    #[error("pod {pod}: {what} cannot be had with runtime {handler}")]
    Handler {
        /// The pod.
        pod: String,
        /// The field.
        what: &'static str,
        /// The handler.
        handler: String,
    },
    /// A volume cannot be provided.
    #[error("volume {volume}: {reason}")]
    Volume {
        /// The volume.
        volume: String,
        /// What is wrong.
        reason: String,
        /// The cause.
        source: Option<io::Error>,
    },
    /// The engine could not start a container.
    #[error("container {container} of pod {pod} does not start")]
    Start {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// The engine's answer.
        source: CriError,
    },
    /// The engine could not start the sandbox.
    #[error("sandbox of pod {pod} does not start")]
    Sandbox {
        /// The pod.
        pod: String,
        /// The engine's answer.
        source: CriError,
    },
    /// The container whose processes another one wants to see does not run.
    #[error("container {container:?} of pod {pod} does not run, so its processes cannot be seen")]
    Target {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// Something the pod is made of is not there.
    #[error("{}{what} {name:?} not found", key.as_ref().map(|key| format!("key {key:?} in ")).unwrap_or_default())]
    Missing {
        /// Its kind.
        what: &'static str,
        /// Its name.
        name: String,
        /// The key that is missing in it.
        key: Option<String>,
    },
    /// The API did not do what the pod needs.
    #[error("cannot {action}{}", if source.is_none() { ": the API does not answer" } else { "" })]
    Api {
        /// What was asked.
        action: String,
        /// What the API said, if anything.
        source: Option<Box<kube::Error>>,
    },
    /// Another process looks after the pod and does not let go.
    #[error("pod {pod} is held by process {holder} for more than {waited:?}")]
    Held {
        /// The pod.
        pod: String,
        /// Process id as that process wrote it.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Parts of a pod could not be removed.
    #[error("pod {pod} is not deleted completely, run `osc down {pod}` again: {}", what.join("; "))]
    Left {
        /// The pod.
        pod: String,
        /// What is left, with reasons.
        what: Vec<String>,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A call to the engine failed.
    #[error("the engine refused")]
    Cri(#[from] CriError),
    /// The engine itself failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl PodError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Manifest(_) | Self::Handler { .. } | Self::Ambiguous { .. } => Kind::Invalid,
            Self::Exists { .. } | Self::Held { .. } | Self::Target { .. } | Self::Left { .. } => Kind::Busy,
            Self::Missing { .. } | Self::NotFound(_) | Self::NoContainer { .. } | Self::Image { source: None, .. } => {
                Kind::NotFound
            }
            Self::Root { .. } => Kind::Denied,
            Self::Volume { source, .. } => source.as_ref().map_or(Kind::Invalid, Kind::of_io),
            Self::Io { source, .. } => Kind::of_io(source),
            Self::Cri(source) | Self::Start { source, .. } | Self::Sandbox { source, .. } => source.kind(),
            Self::Image { source: Some(_), .. } | Self::Api { .. } => Kind::Unavailable,
            Self::Engine(source) => source.kind(),
        }
    }
}

/// Names the object of a failed file operation.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PodError {
    let path = path.into();
    move |source| PodError::Io { action, path, source }
}
