//! A watcher that stays away for long: it is told that it is too late, lists, and goes on from there.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    api::{DynamicObject, ListParams, WatchParams},
};

use super::{World, api, follower::Told, number};

/// The kind it watches.
pub const KIND: usize = 0;

/// A list: its version and the numbers of the objects, by name.
pub struct Listed {
    pub version: u64,
    pub objects: BTreeMap<String, u64>,
}

/// What it saw.
#[derive(Default)]
pub struct Lagged {
    pub lists: Vec<Listed>,
    pub told: Vec<Told>,
}

pub struct Laggard {
    world: World,
    version: u64,
    history: u64,
    seen: Lagged,
}

impl Laggard {
    pub fn new(world: World, version: u64, history: u64) -> Self {
        Self { world, version, history, seen: Lagged::default() }
    }

    /// Watches a server until that is gone, stays away until its place is lost, comes back; until the end is told.
    pub async fn run(mut self) -> Lagged {
        loop {
            let generation = self.world.now();
            if self.watch(generation.client()).await {
                return self.seen;
            }
            self.world.next(generation.number).await;
            while !self.lost() && !self.world.finished.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Whether more changes came since than the store keeps; its compaction takes its time.
    fn lost(&self) -> bool {
        self.world.newest.load(Ordering::SeqCst) > self.version + 2 * self.history
    }

    /// Follows one server until it is gone (`false`) or the end is told (`true`).
    async fn watch(&mut self, client: kube::Client) -> bool {
        let maps = api(client, KIND);
        loop {
            let watching = maps.watch(&WatchParams::default(), &self.version.to_string()).await;
            let Ok(events) = watching else { return false };
            let mut events = events.boxed();
            loop {
                let Some(Ok(event)) = events.next().await else { return false };
                match Told::of(&event) {
                    Ok(told) => {
                        self.version = told.version;
                        let end = told.name == "end";
                        self.seen.told.push(told);
                        if end {
                            return true;
                        }
                    }
                    Err(code) => {
                        assert_eq!(code, 410, "{event:?}");
                        match self.list(&maps).await {
                            None => return false,
                            Some(true) => return true,
                            Some(false) => break,
                        }
                    }
                }
            }
        }
    }

    /// Begins anew; says whether the end is there already, unless the server is gone.
    async fn list(&mut self, maps: &Api<DynamicObject>) -> Option<bool> {
        let list = maps.list(&ListParams::default()).await.ok()?;
        self.version = list.metadata.resource_version.unwrap().parse().unwrap();
        let objects: BTreeMap<_, _> =
            list.items.iter().map(|object| (object.metadata.name.clone().unwrap(), number(object))).collect();
        let end = objects.contains_key("end");
        self.seen.lists.push(Listed { version: self.version, objects });
        Some(end)
    }
}
