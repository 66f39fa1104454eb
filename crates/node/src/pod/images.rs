//! Images a pod needs: here, fetched, or a clear refusal.

use k8s_cri::v1::AuthConfig;

use super::{
    auth,
    cluster::Cluster,
    error::PodError,
    model::{Container, Object, ObjectKind, Pod, Pull},
};
use crate::cri::{Client, CriError};

/// Makes sure that the images of all containers are here and may be run.
///
/// # Errors
/// [`PodError::Image`] or [`PodError::Root`] for the first that is not.
pub async fn ensure(client: &Client, pod: &Pod) -> Result<(), PodError> {
    for container in pod.all() {
        ensure_one(client, pod, container, None, &mut |_| ()).await?;
    }
    Ok(())
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// It is being fetched.
    Begun,
    /// It has been fetched.
    Done,
    /// It was here already.
    Needless,
}

/// Makes sure that the image of one container is here and may be run.
///
/// # Errors
/// [`PodError::Image`] or [`PodError::Root`].
pub async fn ensure_one(
    client: &Client,
    pod: &Pod,
    container: &Container,
    cluster: Option<&Cluster>,
    tell: &mut (impl FnMut(Fetch) + Send),
) -> Result<(), PodError> {
    let name = &container.image;
    let missing = |reason, source| PodError::Image { image: name.clone(), reason, source };
    let here = client.image(name).await?;
    let fetch = match container.pull {
        Pull::Always => true,
        Pull::IfNotPresent => here.is_none(),
        Pull::Never => false,
    };
    let image = if fetch {
        tell(Fetch::Begun);
        let credentials = credentials(pod, name, cluster).await?;
        pull(client, name, credentials).await.map_err(|error| missing("cannot be fetched", Some(error)))?;
        tell(Fetch::Done);
        client.image(name).await?
    } else {
        here.inspect(|_| tell(Fetch::Needless))
    };
    let image = image.ok_or_else(|| missing("is not here and may not be fetched (imagePullPolicy Never)", None))?;
    let security = &container.security;
    if !security.non_root || security.user.is_some() {
        return Ok(());
    }
    // A user that is a name could be 0 in the image's own list of users.
    let user = match (&image.uid, image.username.as_str()) {
        (Some(uid), _) if uid.value != 0 => return Ok(()),
        (Some(_), _) | (None, "") => "root".to_owned(),
        (None, name) => format!("user {name:?}, which may be root"),
    };
    Err(PodError::Root { image: name.clone(), container: container.name.clone(), user })
}

/// Credentials from the pod's pull secrets; a secret that is missing has none.
async fn credentials(pod: &Pod, image: &str, cluster: Option<&Cluster>) -> Result<Vec<AuthConfig>, PodError> {
    let mut found = Vec::new();
    for name in &pod.pull_secrets {
        let secret = Object { kind: ObjectKind::Secret, name: name.clone(), optional: true };
        let data = match cluster {
            Some(cluster) => cluster.data(&pod.namespace, &secret).await?,
            None => None,
        };
        if let Some(data) = data {
            found.extend(auth::KEYS.iter().filter_map(|&key| data.get(key)).flat_map(|c| auth::credentials(image, c)));
        }
    }
    Ok(found)
}

/// Tries each credential, or none where there is none; the last failure counts.
async fn pull(client: &Client, image: &str, credentials: Vec<AuthConfig>) -> Result<(), CriError> {
    let mut result = Ok(());
    let count = credentials.len().max(1);
    let mut credentials = credentials.into_iter();
    for _ in 0..count {
        result = client.pull(image, credentials.next()).await;
        if result.is_ok() {
            break;
        }
    }
    result
}
