//! A client with objects of its own: it writes at random and keeps a journal of what must be there.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{Generation, KINDS, World, annotations, api, number, object, version};

/// Objects of each writer.
const OBJECTS: usize = 6;
/// Pauses for the next server end here; a write that fails without one is a failure of the test.
const LOOKS: usize = 10;

/// One change of an object, in the order they happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The number it holds since; nothing when it was deleted.
    pub number: Option<u64>,
    /// Its version, where the client was told or could look it up.
    pub version: Option<u64>,
}

/// All changes of the objects of a writer, by kind and name.
#[derive(Default)]
pub struct Journal {
    pub changes: BTreeMap<(usize, String), Vec<Change>>,
    /// Writes whose answer never came.
    pub cut_off: usize,
}

pub struct Writer {
    world: World,
    id: usize,
    random: StdRng,
    written: u64,
    generation: Generation,
    client: kube::Client,
    journal: Journal,
}

/// What a write is to make of an object.
struct Write {
    kind: usize,
    name: String,
    /// The number to hold; nothing to delete it.
    number: Option<u64>,
    /// The last change of it.
    before: Option<Change>,
}

impl Writer {
    pub fn new(world: World, id: usize) -> Self {
        let generation = world.now();
        let client = generation.client();
        let random = StdRng::seed_from_u64(id as u64);
        Self { world, id, random, written: 0, generation, client, journal: Journal::default() }
    }

    /// Writes until all writers together have begun so many writes.
    pub async fn run(mut self, writes: usize) -> Journal {
        while self.world.begun.fetch_add(1, Ordering::SeqCst) < writes {
            let write = self.choose();
            let floor = self.world.newest.load(Ordering::SeqCst);
            let change = match self.carry_out(&write).await {
                Ok(change) => {
                    self.world.acknowledged.fetch_add(1, Ordering::SeqCst);
                    Some(change)
                }
                Err(error) => {
                    assert!(!matches!(error, kube::Error::Api(_)), "{} {}: {error}", KINDS[write.kind], write.name);
                    self.journal.cut_off += 1;
                    self.look_up(&write).await
                }
            };
            let Some(change) = change else { continue };
            if let Some(version) = change.version {
                assert!(version > floor, "version {version} after {floor} was told");
                self.world.newest.fetch_max(version, Ordering::SeqCst);
            }
            self.journal.changes.entry((write.kind, write.name)).or_default().push(change);
        }
        self.journal
    }

    fn choose(&mut self) -> Write {
        let slot = self.random.random_range(0..OBJECTS);
        let (kind, name) = (slot % KINDS.len(), format!("w{}-{slot}", self.id));
        let changes = self.journal.changes.get(&(kind, name.clone()));
        let before = changes.and_then(|changes| changes.last().copied());
        let there = before.is_some_and(|change| change.number.is_some());
        self.written += 1;
        let number = (!there || self.random.random_bool(0.8)).then_some(self.id as u64 * 1_000_000 + self.written);
        Write { kind, name, number, before }
    }

    async fn carry_out(&mut self, write: &Write) -> Result<Change, kube::Error> {
        let api = api(self.client.clone(), write.kind);
        let Some(number) = write.number else {
            api.delete(&write.name, &DeleteParams::default()).await?;
            return Ok(Change { number: None, version: None });
        };
        let there = write.before.is_some_and(|change| change.number.is_some());
        let written = if !there {
            api.create(&PostParams::default(), &object(write.kind, &write.name, number)).await?
        } else if self.random.random_bool(0.5) {
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations(number)}}));
            api.patch(&write.name, &PatchParams::default(), &patch).await?
        } else {
            replace(&api, &write.name, number).await?
        };
        assert_eq!(super::number(&written), number, "the answer is what was written");
        Ok(Change { number: Some(number), version: Some(version(&written)) })
    }

    /// What became of a write whose answer never came: nothing, or all of it.
    async fn look_up(&mut self, write: &Write) -> Option<Change> {
        for _ in 0..LOOKS {
            self.generation = self.world.next(self.generation.number).await;
            self.client = self.generation.client();
            // This server may be killed, too.
            let Ok(found) = api(self.client.clone(), write.kind).get_opt(&write.name).await else { continue };
            let found = found.as_ref().map(|object| (number(object), version(object)));
            let before = write.before.and_then(|change| Some((change.number?, change.version?)));
            if found == before {
                return None;
            }
            assert_eq!(found.map(|(number, _)| number), write.number, "{}: {:?}", write.name, write.before);
            return Some(Change { number: write.number, version: found.map(|(_, version)| version) });
        }
        panic!("no server lived long enough to look {} up", write.name);
    }
}

/// Reads, changes and replaces what was read.
async fn replace(api: &Api<DynamicObject>, name: &str, number: u64) -> Result<DynamicObject, kube::Error> {
    let mut present = api.get(name).await?;
    let wanted = present.metadata.annotations.get_or_insert_default();
    wanted.insert("number".into(), number.to_string());
    wanted.insert("echo".into(), super::echo(number));
    api.replace(name, &PostParams::default(), &present).await
}
