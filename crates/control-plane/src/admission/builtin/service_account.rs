//! ServiceAccount: every pod speaks for an account, and finds its token in a volume.

use std::time::Duration;

use osc_api::status::Status;
use rand::Rng;
use serde_json::{Value, json};

use super::{Attributes, Operation, is_mirror, list, list_mut, text};
use crate::reader::Reader;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// What the token lives: an hour, and the time it takes to renew it.
const TOKEN_SECONDS: u32 = 3607;
/// The account `default` comes a moment after its namespace; pods made in between wait for it.
const PATIENCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn admit(reader: &Reader, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.is(&[Operation::Create], "", "pods") || !pod["spec"].is_object() {
        return Ok(());
    }
    if is_mirror(pod) {
        return check_mirror(attributes, pod);
    }
    let name = match text(&pod["spec"], "serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    let account = wait_for_account(reader, attributes, &name).await?;
    pod["spec"]["serviceAccountName"] = json!(name);
    // The older name of the same field, which some clients still read.
    pod["spec"]["serviceAccount"] = json!(name);
    let automount = |object: &Value| object["automountServiceAccountToken"].as_bool();
    if automount(&pod["spec"]).or_else(|| automount(&account)).unwrap_or(true) {
        mount_token(pod);
    }
    if list(&pod["spec"], "imagePullSecrets").is_empty() && !list(&account, "imagePullSecrets").is_empty() {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    Ok(())
}

/// A webhook may have put another account in.
pub(super) fn check(reader: &Reader, attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !attributes.is(&[Operation::Create], "", "pods") {
        return Ok(());
    }
    if is_mirror(pod) {
        return check_mirror(attributes, pod);
    }
    let name = text(&pod["spec"], "serviceAccountName");
    match account(reader, attributes, name)? {
        Some(_) => Ok(()),
        None => Err(missing(attributes, name)),
    }
}

async fn wait_for_account(reader: &Reader, attributes: &Attributes<'_>, name: &str) -> Result<Value, Status> {
    for _ in 0..PATIENCE {
        if let Some(account) = account(reader, attributes, name)? {
            return Ok(account);
        }
        if name != "default" {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(missing(attributes, name))
}

fn account(reader: &Reader, attributes: &Attributes<'_>, name: &str) -> Result<Option<Value>, Status> {
    reader.get("", "serviceaccounts", attributes.namespace, name)
}

fn missing(attributes: &Attributes<'_>, name: &str) -> Status {
    let namespace = attributes.namespace;
    attributes
        .forbidden(format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"))
}

/// Mirror pods were started already, from a file: they can refer to nothing in the API.
fn check_mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    if !text(&pod["spec"], "serviceAccountName").is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    for volume in list(&pod["spec"], "volumes") {
        let projected = list(&volume["projected"], "sources");
        if volume.get("secret").is_some() || projected.iter().any(|source| source.get("secret").is_some()) {
            return Err(attributes.forbidden("a mirror pod may not reference secrets"));
        }
        if projected.iter().any(|source| source.get("serviceAccountToken").is_some()) {
            return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

/// Mounts the token in all containers that have nothing of their own at its place.
fn mount_token(pod: &mut Value) {
    let known = list(&pod["spec"], "volumes").iter().map(|volume| text(volume, "name"));
    let known = known.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let volume = known.clone().unwrap_or_else(random_volume);
    let mut used = false;
    for field in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let taken = list(container, "volumeMounts").iter().any(|mount| text(mount, "mountPath") == MOUNT_PATH);
            if let Some(mounts) = list_mut(container, "volumeMounts").filter(|_| !taken) {
                mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
                used = true;
            }
        }
    }
    if let Some(volumes) = list_mut(&mut pod["spec"], "volumes").filter(|_| used && known.is_none()) {
        volumes.push(token_volume(&volume));
    }
}

fn random_volume() -> String {
    /// Without vowels and look-alikes: such a name never reads as a word.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let suffix = (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]));
    format!("{VOLUME_PREFIX}{}", suffix.collect::<String>())
}

fn token_volume(name: &str) -> Value {
    json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [
            { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
        ] } },
    ] } })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{World, pod};
    use super::*;

    fn account_named(name: &str, rest: Value) -> Value {
        let mut account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": "default" } });
        account.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        account
    }

    async fn world() -> World {
        World::with(&[
            account_named("default", json!({ "imagePullSecrets": [{ "name": "registry" }] })),
            account_named("quiet", json!({ "automountServiceAccountToken": false })),
        ])
        .await
    }

    async fn admitted(world: &World, pod: Value) -> Result<Value, Status> {
        let given = pod.clone();
        let mut pod = pod;
        let attributes = world.asks(Operation::Create, "pods", &given);
        admit(&world.reader, &attributes, &mut pod).await?;
        let once = pod.clone();
        admit(&world.reader, &attributes, &mut pod).await?;
        assert_eq!(once, pod, "the second time changes nothing");
        check(&world.reader, &attributes, &pod)?;
        Ok(pod)
    }

    #[tokio::test]
    async fn a_pod_gets_account_token_and_pull_secrets() {
        let world = world().await;
        let mut given = pod();
        given["spec"]["initContainers"] = json!([{ "name": "i" }]);
        let seen = admitted(&world, given).await.unwrap();
        let spec = &seen["spec"];
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{ "name": "registry" }]));
        let volume = &spec["volumes"][0];
        assert!(text(volume, "name").starts_with(VOLUME_PREFIX));
        assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
        for field in ["containers", "initContainers"] {
            let mount = &spec[field][0]["volumeMounts"][0];
            assert_eq!((&mount["name"], text(mount, "mountPath")), (&volume["name"], MOUNT_PATH));
        }
    }

    #[tokio::test]
    async fn pods_and_accounts_can_do_without_the_token() {
        let world = world().await;
        let own_mount = json!([{ "name": "own", "mountPath": MOUNT_PATH }]);
        for (spec, volumes) in [
            (json!({ "automountServiceAccountToken": false }), 0),
            (json!({ "serviceAccountName": "quiet" }), 0),
            (json!({ "serviceAccountName": "quiet", "automountServiceAccountToken": true }), 1),
            (json!({ "containers": [{ "name": "c", "volumeMounts": own_mount }] }), 0),
            (json!({ "containers": [{ "name": "c", "volumeMounts": own_mount }, { "name": "d" }] }), 1),
        ] {
            let mut pod = pod();
            pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let seen = admitted(&world, pod).await.unwrap();
            assert_eq!(list(&seen["spec"], "volumes").len(), volumes, "{spec}");
        }
    }

    #[tokio::test]
    async fn a_pod_without_its_account_is_refused() {
        let world = world().await;
        let mut lost = pod();
        lost["spec"]["serviceAccountName"] = json!("none");
        let status = admitted(&world, lost).await.unwrap_err();
        let want = "pods \"p\" is forbidden: error looking up service account default/none: serviceaccount \"none\" \
                    not found";
        assert_eq!((status.code, status.message.as_str()), (403, want));
    }

    #[tokio::test]
    async fn a_pod_waits_for_the_first_account_of_a_namespace() {
        let world = World::with(&[]).await;
        let comes = async {
            tokio::time::sleep(PAUSE).await;
            world.put(account_named("default", json!({}))).await;
        };
        let (seen, ()) = tokio::join!(admitted(&world, pod()), comes);
        assert_eq!(seen.unwrap()["spec"]["serviceAccountName"], "default");
    }

    #[tokio::test]
    async fn mirror_pods_refer_to_nothing() {
        let world = world().await;
        let mut mirror = pod();
        mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
        assert_eq!(admitted(&world, mirror.clone()).await.unwrap(), mirror);
        mirror["spec"]["volumes"] = json!([{ "name": "s", "secret": { "secretName": "s" } }]);
        assert!(admitted(&world, mirror).await.unwrap_err().message.contains("may not reference secrets"));
    }
}
