//! Completion indexes of an Indexed Job: `0-3,7`.

use std::collections::BTreeSet;

/// Most indexes that are taken from a status text; more than any Job may have.
const LIMIT: u32 = 100_000;

/// A set of indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(pub(super) BTreeSet<u32>);

impl Indexes {
    /// Reads a status text; what cannot be read or is beyond `completions` is left out.
    pub(super) fn parse(text: &str, completions: u32) -> Self {
        let end = completions.min(LIMIT);
        let range = |part: &str| -> Option<std::ops::Range<u32>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            Some(first..last.saturating_add(1).min(end))
        };
        Self(text.split(',').filter_map(range).flatten().collect())
    }

    pub(super) fn to_text(&self) -> String {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for index in &self.0 {
            match parts.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => parts.push((*index, *index)),
            }
        }
        let text = |(first, last): (u32, u32)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        };
        parts.into_iter().map(text).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_as_kubernetes_writes_them() {
        for (text, completions, want) in [
            ("", 5, ""),
            ("0", 5, "0"),
            ("0,1", 5, "0,1"),
            ("0-2,4", 5, "0-2,4"),
            ("0-9", 5, "0-4"),
            ("x,3-1,2", 5, "2"),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_text(), want, "{text}");
        }
        assert_eq!(Indexes::parse("0-4294967295", u32::MAX).0.len(), LIMIT as usize, "hostile text is bounded");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(set in proptest::collection::btree_set(0u32..200, 0..50)) {
            let indexes = Indexes(set);
            prop_assert_eq!(Indexes::parse(&indexes.to_text(), 200), indexes);
        }
    }
}
