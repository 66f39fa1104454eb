//! Images a pod needs: here, fetched, or a clear refusal.

use super::{
    error::PodError,
    model::{Container, Pod, Pull},
};
use crate::cri::Client;

/// Makes sure that the images of all containers are here and may be run.
///
/// # Errors
/// [`PodError::Image`] or [`PodError::Root`] for the first that is not.
pub async fn ensure(client: &Client, pod: &Pod) -> Result<(), PodError> {
    for container in pod.all() {
        ensure_one(client, container).await?;
    }
    Ok(())
}

async fn ensure_one(client: &Client, container: &Container) -> Result<(), PodError> {
    let name = &container.image;
    let missing = |reason, source| PodError::Image { image: name.clone(), reason, source };
    let here = client.image(name).await?;
    let fetch = match container.pull {
        Pull::Always => true,
        Pull::IfNotPresent => here.is_none(),
        Pull::Never => false,
    };
    let image = if fetch {
        client.pull(name).await.map_err(|error| missing("cannot be fetched", Some(error)))?;
        client.image(name).await?
    } else {
        here
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
