//! What selectors can ask of a change, read once for all watches that ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use osc_api::{selector::outline, status::Status};
use osc_store::{Event, EventKind, Revision};
use serde_json::Value;

use super::watch::json_of;
use crate::resources::Served;

/// Changes remembered: no watch that keeps up is further behind the first.
const KEEP: usize = 256;
/// Of larger objects, in bytes, nothing is remembered, so that all of it stays small.
const LARGEST: usize = 64 << 10;

/// The object of a change, before and after it.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(super) before: Option<Value>,
    pub(super) now: Option<Value>,
}

type Cell = Arc<OnceLock<Result<Arc<Outline>, Status>>>;

/// Outlines of the newest changes.
#[derive(Debug, Default)]
pub(crate) struct Outlines(Mutex<BTreeMap<Revision, Cell>>);

impl Outlines {
    /// The outline of a change of an object of `served`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn of(&self, event: &Event, served: &Served) -> Result<Arc<Outline>, Status> {
        let size = event.value.len().max(event.previous.as_ref().map_or(0, |previous| previous.len()));
        if size > LARGEST {
            return read(event, served);
        }
        let cell = self.cell(event.revision);
        cell.get_or_init(|| read(event, served)).clone()
    }

    fn cell(&self, revision: Revision) -> Cell {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells.entry(revision).or_default().clone();
        // The oldest goes: that of a watch far behind is gone at once and pushes nobody out.
        if cells.len() > KEEP {
            cells.pop_first();
        }
        cell
    }
}

fn read(event: &Event, served: &Served) -> Result<Arc<Outline>, Status> {
    let outline = |bytes: &[u8]| Ok::<_, Status>(outline(&served.resource, &json_of(bytes)?));
    let now = (event.kind == EventKind::Put).then(|| outline(&event.value)).transpose()?;
    let before = event.previous.as_deref().map(outline).transpose()?;
    Ok(Arc::new(Outline { before, now }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let outlines = Outlines::default();
        let first = outlines.cell(Revision::new(1000));
        assert!(Arc::ptr_eq(&first, &outlines.cell(Revision::new(1000))));
        for old in 0..2 * KEEP as u64 {
            outlines.cell(Revision::new(old));
        }
        assert!(Arc::ptr_eq(&first, &outlines.cell(Revision::new(1000))), "a watch far behind pushes nobody out");
        for new in 1..=KEEP as u64 {
            outlines.cell(Revision::new(1000 + new));
        }
        assert!(!Arc::ptr_eq(&first, &outlines.cell(Revision::new(1000))));
        assert_eq!(outlines.0.lock().unwrap().len(), KEEP);
    }
}
