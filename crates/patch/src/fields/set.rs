//! Sets of paths, as trees.

use std::collections::BTreeMap;
use std::collections::btree_map;

use super::Element;

/// A set of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// No entry is empty, so that equal sets are equal trees.
    entries: BTreeMap<Element, Entry>,
}

/// What a set says about one element and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The path that ends here is in the set.
    pub owned: bool,
    /// Paths that go on from here.
    pub below: Set,
}

impl Entry {
    /// Nothing but the path that ends here.
    pub fn leaf() -> Self {
        Self { owned: true, below: Set::default() }
    }

    /// Neither this nor anything below.
    pub fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

impl Set {
    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is said about `element`.
    pub fn get(&self, element: &Element) -> Option<&Entry> {
        self.entries.get(element)
    }

    /// What is said about each element, sorted: fields, then items.
    pub fn iter(&self) -> btree_map::Iter<'_, Element, Entry> {
        self.entries.iter()
    }

    /// Adds everything `entry` says about `element`.
    pub fn add(&mut self, element: Element, entry: Entry) {
        if entry.is_empty() {
            return;
        }
        match self.entries.entry(element) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
            }
            btree_map::Entry::Occupied(mut present) => {
                let present = present.get_mut();
                present.owned |= entry.owned;
                present.below.union(entry.below);
            }
        }
    }

    /// Adds one path; the empty one is not a path.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, steps)) = path.split_last() else { return };
        let mut set = self;
        for step in steps {
            set = &mut set.entries.entry(step.clone()).or_default().below;
        }
        set.entries.entry(last.clone()).or_default().owned = true;
    }

    /// The set of one path of fields.
    pub fn of(fields: &[&str]) -> Self {
        let path: Vec<Element> = fields.iter().map(|name| Element::field(name)).collect();
        let mut set = Self::default();
        set.insert(&path);
        set
    }

    /// Adds all paths of `other`.
    pub fn union(&mut self, other: Set) {
        for (element, entry) in other {
            self.add(element, entry);
        }
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let shared = self.entries.iter().filter_map(|(element, mine)| {
            let theirs = other.entries.get(element)?;
            let both = Entry { owned: mine.owned && theirs.owned, below: mine.below.intersection(&theirs.below) };
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Set { entries: shared.collect() }
    }

    /// Removes the paths of `other`, not what is below them.
    pub fn subtract(&mut self, other: &Set) {
        self.entries.retain(|element, mine| {
            if let Some(theirs) = other.entries.get(element) {
                mine.owned &= !theirs.owned;
                mine.below.subtract(&theirs.below);
            }
            !mine.is_empty()
        });
    }

    /// Removes the paths of `other` and everything below them.
    pub fn subtract_trees(&mut self, other: &Set) {
        self.entries.retain(|element, mine| match other.entries.get(element) {
            Some(theirs) if theirs.owned => false,
            Some(theirs) => {
                mine.below.subtract_trees(&theirs.below);
                !mine.is_empty()
            }
            None => true,
        });
    }

    /// Removes everything that does not start with an element `keep` wants.
    pub fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        self.entries.retain(|element, _| keep(element));
    }

    /// Whether every path is one of `other`.
    pub fn is_subset(&self, other: &Set) -> bool {
        self.entries.iter().all(|(element, mine)| match other.entries.get(element) {
            Some(theirs) => (!mine.owned || theirs.owned) && mine.below.is_subset(&theirs.below),
            None => false,
        })
    }

    /// Calls `visit` for each path as it is written in messages, parents first.
    pub fn for_each_path(&self, visit: &mut impl FnMut(&str)) {
        self.visit(&mut String::new(), visit);
    }

    fn visit(&self, path: &mut String, visit: &mut impl FnMut(&str)) {
        for (element, entry) in &self.entries {
            let parent = path.len();
            path.push_str(&element.to_string());
            if entry.owned {
                visit(path);
            }
            entry.below.visit(path, visit);
            path.truncate(parent);
        }
    }

    /// All paths as they are written in messages.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.for_each_path(&mut |path| paths.push(path.to_owned()));
        paths
    }
}

/// What is said about each element, sorted.
impl IntoIterator for Set {
    type Item = (Element, Entry);
    type IntoIter = btree_map::IntoIter<Element, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.union(Set::of(&path.split('.').collect::<Vec<_>>()));
        }
        set
    }

    #[test]
    fn sets_add_and_subtract() {
        // left, right, union, intersection, left - right, left - trees of right
        for (left, right, union, intersection, difference, pruned) in [
            (&["a"][..], &["a"][..], &["a"][..], &["a"][..], &[][..], &[][..]),
            (&["a"], &["b"], &["a", "b"], &[], &["a"], &["a"]),
            (&["a", "a.b"], &["a"], &["a", "a.b"], &["a"], &["a.b"], &[]),
            (&["a.b"], &["a"], &["a", "a.b"], &[], &["a.b"], &[]),
            (&["a"], &["a.b"], &["a", "a.b"], &[], &["a"], &["a"]),
            (&["a.b.c", "a.d"], &["a.b"], &["a.b", "a.b.c", "a.d"], &[], &["a.b.c", "a.d"], &["a.d"]),
            (&["a.b", "a.c"], &["a.c", "a.d"], &["a.b", "a.c", "a.d"], &["a.c"], &["a.b"], &["a.b"]),
        ] {
            let (left, right) = (set(left), set(right));
            let of = |f: &dyn Fn(&mut Set)| {
                let mut copy = left.clone();
                f(&mut copy);
                copy
            };
            assert_eq!(of(&|l| l.union(right.clone())), set(union), "{left:?} + {right:?}");
            assert_eq!(left.intersection(&right), set(intersection), "{left:?} and {right:?}");
            assert_eq!(of(&|l| l.subtract(&right)), set(difference), "{left:?} - {right:?}");
            assert_eq!(of(&|l| l.subtract_trees(&right)), set(pruned), "{left:?} - {right:?} and below");
            assert_eq!(left.is_subset(&right), left.intersection(&right) == left);
            assert!(left.intersection(&right).is_subset(&left));
        }
    }

    #[test]
    fn paths_are_listed_parents_first() {
        assert_eq!(set(&["b", "a.c", "a"]).paths(), [".a", ".a.c", ".b"]);
    }
}
