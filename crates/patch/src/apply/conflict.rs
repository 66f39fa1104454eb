//! What to say when somebody else owns a field.

use std::collections::BTreeMap;
use std::fmt;

use osc_schema::Cause;

use crate::fields::Set;
use crate::managed::{Id, Operation, Owners};

/// A field somebody else owns and wants to have another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as in messages: `"kubectl" using apps/v1`.
    pub owner: String,
    /// The field: `.spec.replicas`.
    pub field: String,
}

/// All conflicts of one apply; as text, the message of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    conflicts: Vec<Conflict>,
}

impl Conflicts {
    /// Where `owners` own what is `contested`.
    pub(super) fn between(owners: &Owners, contested: &Set) -> Self {
        let mut conflicts = Vec::new();
        for (id, owner) in owners.iter() {
            let shown = shown(id, &owner.api_version);
            owner.fields.intersection(contested).for_each_path(&mut |path| {
                conflicts.push(Conflict { owner: shown.clone(), field: path.to_owned() });
            });
        }
        Self { conflicts }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.conflicts.is_empty()
    }

    /// Each conflict.
    pub fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.iter()
    }

    /// One cause for each conflict.
    pub fn causes(&self) -> Vec<Cause> {
        let cause = |conflict: &Conflict| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", conflict.owner),
            field: conflict.field.clone(),
        };
        self.conflicts.iter().map(cause).collect()
    }
}

impl std::error::Error for Conflicts {}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { owner, field }] = &self.conflicts[..] {
            return write!(f, "Apply failed with 1 conflict: conflict with {owner}: {field}");
        }
        let mut by_owner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Conflict { owner, field } in &self.conflicts {
            by_owner.entry(owner).or_default().push(field);
        }
        let lines = by_owner.iter().flat_map(|(owner, fields)| {
            let head = format!("conflicts with {owner}:");
            std::iter::once(head).chain(fields.iter().map(|field| format!("- {field}")))
        });
        let lines: Vec<String> = lines.collect();
        write!(f, "Apply failed with {} conflicts: {}", self.conflicts.len(), lines.join("\n"))
    }
}

fn shown(id: &Id, api_version: &str) -> String {
    let mut shown = format!("{:?}", id.manager);
    if !id.subresource.is_empty() {
        shown.push_str(&format!(" with subresource {:?}", id.subresource));
    }
    if id.operation == Operation::Update {
        shown.push_str(&format!(" using {api_version}"));
    }
    shown
}
