//! `metadata.managedFields`, read and written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Manager;
use crate::fields::{self, Set};
use crate::typed::{Change, Place, fit};

/// Owners by ordinary writes one object keeps apart.
const MAX_UPDATERS: usize = 10;

/// Owner of what the oldest of too many ordinary writes owned.
const ANCIENT: &str = "ancient-changes";

/// How somebody came to own fields. Sorts like the words it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

/// What tells owners apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub operation: Operation,
    pub manager: String,
    /// Empty for appliers: they stay the same when they move to another version.
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Id {
    /// The owner that `by` is when it applies.
    pub fn apply(by: &Manager) -> Self {
        Self { operation: Operation::Apply, api_version: String::new(), ..Self::update(by) }
    }

    /// The owner that `by` is when it writes otherwise.
    pub fn update(by: &Manager) -> Self {
        Self {
            operation: Operation::Update,
            manager: by.name.clone(),
            api_version: by.api_version.clone(),
            subresource: by.subresource.clone().unwrap_or_default(),
        }
    }
}

/// What an owner owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Version the fields were written in.
    pub api_version: String,
    pub fields: Set,
    /// When the owner last changed something.
    pub time: Option<Timestamp>,
}

/// All owners of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    by_id: BTreeMap<Id, Owner>,
}

impl Owners {
    /// Reads notes; none if any of them makes no sense.
    pub fn read(place: Place<'_>, notes: &Value) -> Option<Self> {
        let mut budget = fields::MAX_FIELDS;
        let by_id = notes.as_array()?.iter().map(|note| read_one(place, note, &mut budget)).collect::<Option<_>>()?;
        Some(Self { by_id })
    }

    /// Notes, sorted: appliers first, then by time.
    pub fn to_value(&self) -> Vec<Value> {
        let mut sorted: Vec<(&Id, &Owner)> = self.by_id.iter().collect();
        sorted.sort_by(|(a, owns_a), (b, owns_b)| {
            let seconds = |owner: &Owner| owner.time.map_or(0, Timestamp::as_second);
            a.operation
                .cmp(&b.operation)
                .then_with(|| seconds(owns_a).cmp(&seconds(owns_b)))
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| owns_a.api_version.cmp(&owns_b.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        sorted.into_iter().map(|(id, owner)| write_one(id, owner)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Owner)> {
        self.by_id.iter()
    }

    pub fn remove(&mut self, id: &Id) -> Option<Owner> {
        self.by_id.remove(id)
    }

    pub fn insert(&mut self, id: Id, owner: Owner) {
        self.by_id.insert(id, owner);
    }

    /// The owner `id`; new ones write as `by` does.
    pub fn entry(&mut self, id: Id, by: &Manager) -> &mut Owner {
        self.by_id.entry(id).or_insert_with(|| Owner {
            api_version: by.api_version.clone(),
            fields: Set::default(),
            time: None,
        })
    }

    /// Takes from everybody what somebody else changed. Who owns nothing any more is forgotten.
    pub fn give_way(&mut self, change: &Change) {
        for owner in self.by_id.values_mut() {
            for gone in [&change.added, &change.modified, &change.removed] {
                owner.fields.subtract(gone);
            }
        }
        self.by_id.retain(|_, owner| !owner.fields.is_empty());
    }

    /// Keeps the number of ordinary writers bounded: what the oldest owned passes to one common owner for each version.
    pub fn cap(&mut self) {
        let mut oldest: Vec<(Option<Timestamp>, Id)> =
            self.updaters().map(|(id, owner)| (owner.time, id.clone())).collect();
        oldest.sort();
        let mut first_of: BTreeMap<String, Id> = BTreeMap::new();
        for (_, id) in oldest {
            if self.updaters().count() <= MAX_UPDATERS {
                break;
            }
            // The oldest of its version waits for a second one: alone it would only change its name.
            match first_of.get(&id.api_version) {
                None => {
                    first_of.insert(id.api_version.clone(), id);
                }
                Some(first) => {
                    let bucket = Id { manager: ANCIENT.to_owned(), subresource: String::new(), ..id.clone() };
                    self.pour(first, &bucket);
                    self.pour(&id, &bucket);
                }
            }
        }
    }

    fn updaters(&self) -> impl Iterator<Item = (&Id, &Owner)> {
        self.by_id.iter().filter(|(id, _)| id.operation == Operation::Update)
    }

    /// Moves all that `from` owns to `into`.
    fn pour(&mut self, from: &Id, into: &Id) {
        let Some(source) = self.by_id.remove(from) else { return };
        match self.by_id.get_mut(into) {
            Some(target) => {
                target.fields.union(source.fields);
                target.time = target.time.max(source.time);
            }
            None => {
                self.by_id.insert(into.clone(), source);
            }
        }
    }
}

fn read_one(place: Place<'_>, note: &Value, budget: &mut usize) -> Option<(Id, Owner)> {
    let text = |name: &str| match note.get(name) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let api_version = text("apiVersion").filter(|version| !version.is_empty())?.to_owned();
    if text("fieldsType")? != "FieldsV1" {
        return None;
    }
    let time = match text("time")? {
        "" => None,
        time => Some(time.parse().ok()?),
    };
    let fields = match note.get("fieldsV1") {
        Some(fields) => fields::parse(fields, budget).ok()?,
        None => Set::default(),
    };
    let id = Id {
        operation,
        manager: text("manager")?.to_owned(),
        api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
        subresource: text("subresource")?.to_owned(),
    };
    Some((id, Owner { api_version, fields: fit(place, fields), time }))
}

fn write_one(id: &Id, owner: &Owner) -> Value {
    let operation = match id.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut note = Map::new();
    if !id.manager.is_empty() {
        note.insert("manager".to_owned(), json!(id.manager));
    }
    note.insert("operation".to_owned(), json!(operation));
    note.insert("apiVersion".to_owned(), json!(owner.api_version));
    if let Some(time) = owner.time {
        note.insert("time".to_owned(), json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    note.insert("fieldsType".to_owned(), json!("FieldsV1"));
    note.insert("fieldsV1".to_owned(), fields::to_value(&owner.fields));
    if !id.subresource.is_empty() {
        note.insert("subresource".to_owned(), json!(id.subresource));
    }
    Value::Object(note)
}
