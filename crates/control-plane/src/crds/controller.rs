//! The loop that brings definitions to life and lays them to rest.

use std::{sync::Arc, time::Duration};

use osc_access::Identity;
use osc_api::status::Status;
use osc_store::{EventKind, Page, Prefix, Revision};
use serde_json::Value;
use tracing::{info, warn};

use super::{CLEANUP, GROUP, PLURAL, names};
use crate::{
    api::Api,
    objects,
    resources::{Custom, Served},
    write::{self, Intent, Ownership, delete, update},
};

/// Pause between looks at definitions whose objects are still going.
const CLEANUP_PAUSE: Duration = Duration::from_millis(300);
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the definitions until the server stops. `ready` is told once all that
/// exist are served.
pub(crate) async fn run(api: Arc<Api>, ready: tokio::sync::oneshot::Sender<()>) {
    let mut ready = Some(ready);
    while !api.stop.is_cancelled() {
        let mut controller =
            Controller { api: Arc::clone(&api), identity: Identity::administrator(), going: Vec::new() };
        if let Err(status) = controller.follow(&mut ready).await {
            warn!(error = status.message, "custom resource definitions not followed, beginning anew");
            tokio::select! {
                () = api.stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

struct Controller {
    api: Arc<Api>,
    identity: Identity,
    /// Definitions being deleted.
    going: Vec<String>,
}

impl Controller {
    async fn follow(&mut self, ready: &mut Option<tokio::sync::oneshot::Sender<()>>) -> Result<(), Status> {
        let prefix = Prefix::resource(GROUP, PLURAL).map_err(Status::internal)?;
        let from = self.all(&prefix).await?;
        if let Some(ready) = ready.take() {
            // Nobody may be waiting any more.
            let _ = ready.send(());
        }
        let mut watch = self.api.store.watch(&prefix, from).map_err(|error| objects::history(&error))?;
        loop {
            let cleanup = async {
                match self.going.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(CLEANUP_PAUSE).await,
                }
            };
            tokio::select! {
                () = self.api.stop.cancelled() => return Ok(()),
                () = cleanup => self.clean_up().await,
                event = watch.next() => { // cancel-safe
                    let event = event.map_err(|error| objects::history(&error))?;
                    match event.kind {
                        EventKind::Put => self.look_at(event.key.name()).await,
                        EventKind::Delete => self.gone(event.key.name()).await?,
                    }
                }
            }
        }
    }

    /// Looks at every definition there is.
    async fn all(&mut self, prefix: &Prefix) -> Result<Revision, Status> {
        let listing = self.api.store.list(prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
        for entry in &listing.entries {
            self.look_at(entry.key.name()).await;
        }
        Ok(listing.revision)
    }

    /// Its names are free for others now.
    async fn gone(&mut self, name: &str) -> Result<(), Status> {
        self.api.catalog.set(name, Vec::new());
        self.going.retain(|going| going != name);
        info!(crd.name = name, "custom resource definition gone");
        for other in self.api.reader.list(GROUP, PLURAL, "").await? {
            if !names::has_condition(&other, "NamesAccepted") {
                self.look_at(other["metadata"]["name"].as_str().unwrap_or_default()).await;
            }
        }
        Ok(())
    }

    async fn look_at(&mut self, name: &str) {
        match self.settle(name).await {
            Ok(()) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => warn!(crd.name = name, error = status.message, "definition not settled"),
        }
    }

    /// Judges the names of a definition and serves it accordingly.
    async fn settle(&mut self, name: &str) -> Result<(), Status> {
        let Some(crd) = self.api.reader.get(GROUP, PLURAL, "", name)? else { return Ok(()) };
        let others = self.api.reader.list(GROUP, PLURAL, "").await?;
        let judged = if names::judged(&crd, &others) == crd {
            crd
        } else {
            let write = |crd: &Value| Ok(names::judged(crd, &others));
            self.update(name, "status", write).await?
        };
        if judged["metadata"]["deletionTimestamp"].is_string() && !self.going.iter().any(|going| going == name) {
            self.going.push(name.to_owned());
        }
        let served = names::has_condition(&judged, "Established");
        self.api.catalog.set(name, if served { Custom::served(&judged) } else { Vec::new() });
        Ok(())
    }

    async fn clean_up(&mut self) {
        for name in std::mem::take(&mut self.going) {
            match self.finish(&name).await {
                Ok(true) => {}
                Ok(false) => self.going.push(name),
                Err(status) if status.code == 404 => {}
                Err(status) => {
                    warn!(crd.name = name, error = status.message, "objects of a definition not deleted yet");
                    self.going.push(name);
                }
            }
        }
    }

    /// Deletes the objects of a definition; once there are none, lets it go.
    async fn finish(&self, name: &str) -> Result<bool, Status> {
        let Some(crd) = self.api.reader.get(GROUP, PLURAL, "", name)? else { return Ok(true) };
        let holds = crd["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|it| it == CLEANUP));
        if !holds {
            return Ok(true);
        }
        if !self.delete_objects(&crd).await? {
            return Ok(false);
        }
        self.update(name, "", |crd| {
            let mut crd = crd.clone();
            if let Some(finalizers) = crd["metadata"]["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| finalizer != CLEANUP);
            }
            Ok(crd)
        })
        .await?;
        Ok(true)
    }

    /// Whether no objects are left; deletes those that are.
    async fn delete_objects(&self, crd: &Value) -> Result<bool, Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, plural) = (text(&crd["spec"]["group"]), text(&crd["spec"]["names"]["plural"]));
        if !names::has_condition(crd, "Established") {
            return Ok(true);
        }
        let snapshot = self.api.catalog.snapshot();
        let Some(served) = snapshot.find_any_version(&group, &plural) else {
            return Ok(true);
        };
        let prefix = served.prefix("")?;
        let listing = self.api.store.list(&prefix, Page::default()).await.map_err(|error| objects::history(&error))?;
        for entry in &listing.entries {
            let object = objects::decode(served, &entry.value)?;
            if object["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let intent = self.intent(served, entry.key.namespace(), entry.key.name(), "");
            match delete::delete(&intent, &delete::DeleteOptions::default()).await {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        Ok(listing.entries.is_empty())
    }

    async fn update(
        &self,
        name: &str,
        subresource: &str,
        change: impl Fn(&Value) -> Result<Value, Status> + Sync,
    ) -> Result<Value, Status> {
        let snapshot = self.api.catalog.snapshot();
        let served = snapshot.find(GROUP, "v1", PLURAL).ok_or_else(Status::unknown_path)?;
        update::update(&self.intent(served, "", name, subresource), change).await
    }

    fn intent<'a>(&'a self, served: &'a Served, namespace: &'a str, name: &'a str, subresource: &'a str) -> Intent<'a> {
        let options = crate::call::WriteOptions { dry_run: false, manager: "kube-apiserver".into() };
        Intent {
            api: &self.api,
            served,
            identity: &self.identity,
            namespace,
            name,
            subresource,
            options,
            ownership: Ownership::Update,
            warn: &write::nobody,
        }
    }
}
