//! A watcher that is always there: it must see every change of a kind, each once and in order.

use futures::StreamExt;
use kube::api::{DynamicObject, WatchEvent, WatchParams};

use super::{World, api, number, version};

/// An event as told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub what: &'static str,
    pub name: String,
    pub number: u64,
    pub version: u64,
}

impl Told {
    pub fn new(what: &'static str, object: &DynamicObject) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        Self { what, name, number: number(object), version: version(object) }
    }

    /// What an event says, unless it is an error.
    pub fn of(event: &WatchEvent<DynamicObject>) -> Result<Self, u16> {
        match event {
            WatchEvent::Added(object) => Ok(Self::new("ADDED", object)),
            WatchEvent::Modified(object) => Ok(Self::new("MODIFIED", object)),
            WatchEvent::Deleted(object) => Ok(Self::new("DELETED", object)),
            WatchEvent::Bookmark(_) => panic!("nobody asked for bookmarks"),
            WatchEvent::Error(status) => Err(status.code),
        }
    }
}

pub struct Follower {
    world: World,
    kind: usize,
    told: Vec<Told>,
    version: u64,
}

impl Follower {
    pub fn new(world: World, kind: usize, version: u64) -> Self {
        Self { world, kind, told: Vec::new(), version }
    }

    /// Watches over all servers until the end is told; returns the kind and all events.
    pub async fn run(mut self) -> (usize, Vec<Told>) {
        loop {
            let generation = self.world.now();
            if self.watch(generation.client()).await {
                return (self.kind, self.told);
            }
            self.world.next(generation.number).await;
        }
    }

    /// Follows one server until it is gone (`false`) or the end is told (`true`).
    async fn watch(&mut self, client: kube::Client) -> bool {
        let watching = api(client, self.kind).watch(&WatchParams::default(), &self.version.to_string()).await;
        let Ok(events) = watching else { return false };
        let mut events = events.boxed();
        while let Some(Ok(event)) = events.next().await {
            let told = Told::of(&event).expect("a watcher that is there is never too late");
            self.version = told.version;
            let end = told.name == "end";
            self.told.push(told);
            if end {
                return true;
            }
        }
        false
    }
}
