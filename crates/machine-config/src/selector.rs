//! Label selectors of pools.

use std::collections::BTreeMap;

use osc_objects::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether the labels are selected. Nothing is selected by a selector that is
/// absent or empty: people who write an empty one rarely mean everything.
pub fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_some_and(|selector| !selector.is_empty() && selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_selected_by_nothing() {
        let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
        for (selector, want) in [
            (None, false),
            (Some(LabelSelector::default()), false),
            (Some(LabelSelector::label("a", "1")), true),
            (Some(LabelSelector::label("a", "2")), false),
            (Some(LabelSelector::one_of("a", ["0", "1"])), true),
        ] {
            assert_eq!(selects(selector.as_ref(), &labels), want, "{selector:?}");
        }
    }
}
