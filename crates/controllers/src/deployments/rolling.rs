//! The arithmetic of a rollout: which ReplicaSet gets how many pods next.
//!
//! Invariants while rolling: never more than `replicas + maxSurge` pods are asked
//! for, and no available pod is given up while fewer than
//! `replicas - maxUnavailable` would remain.

use std::cmp::Reverse;

use k8s_openapi::{apimachinery::pkg::util::intstr::IntOrString, jiff::Timestamp};

/// One ReplicaSet as a rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) created: Timestamp,
    /// Asked for in its spec.
    pub(super) replicas: i32,
    /// Available according to its status.
    pub(super) available: i32,
    /// `replicas` of the Deployment when the set was last scaled.
    pub(super) desired_then: Option<i32>,
    /// Upper limit of all pods when the set was last scaled.
    pub(super) most_then: Option<i32>,
}

/// A Deployment as a rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rollout {
    pub(super) desired: i32,
    pub(super) surge: i32,
    pub(super) unavailable: i32,
    /// The set of the current template.
    pub(super) new: Option<Set>,
    /// All other sets.
    pub(super) old: Vec<Set>,
}

/// New size of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) name: String,
    pub(super) to: i32,
}

/// `maxSurge` and `maxUnavailable` as numbers: the first rounded up, the second
/// down, and never both zero.
pub(super) fn fence_posts(surge: Option<&IntOrString>, unavailable: Option<&IntOrString>, desired: i32) -> (i32, i32) {
    let default = IntOrString::String("25%".into());
    let surge = portion(surge.unwrap_or(&default), desired, true);
    let unavailable = portion(unavailable.unwrap_or(&default), desired, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(desired)) }
}

/// A number or percentage of `of`; unreadable percentages, which the API refuses, are zero.
pub(crate) fn portion(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            let product = percent.max(0).saturating_mul(i64::from(of.max(0)));
            let share = if up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

impl Rollout {
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    fn total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    /// Most pods that may be asked for at once.
    pub(super) fn most(&self) -> i32 {
        if self.desired > 0 { self.desired.saturating_add(self.surge) } else { 0 }
    }

    /// Whether `replicas` changed since the sets were last scaled.
    pub(super) fn rescaled(&self) -> bool {
        self.all().any(|set| set.replicas > 0 && set.desired_then.is_some_and(|then| then != self.desired))
    }

    /// Next step of a rolling update; nothing once there is nothing to do now.
    pub(super) fn roll(&self) -> Vec<Scale> {
        let grow = self.grow_new();
        if !grow.is_empty() { grow } else { self.shrink_old() }
    }

    /// Next step of a recreation: old pods go first, `old_pods_left` says whether any still run.
    pub(super) fn recreate(&self, old_pods_left: bool) -> Vec<Scale> {
        let down: Vec<_> = self.old.iter().filter(|set| set.replicas > 0).map(|set| to(set, 0)).collect();
        if !down.is_empty() || old_pods_left {
            return down;
        }
        self.new.iter().filter(|set| set.replicas != self.desired).map(|set| to(set, self.desired)).collect()
    }

    /// Follows a change of `replicas`, in the middle of a rollout in proportion.
    pub(super) fn rescale(&self) -> Vec<Scale> {
        let mut active = self.all().filter(|set| set.replicas > 0);
        let only = match (active.next(), active.next()) {
            (None, _) => self.new.as_ref().or_else(|| self.old.iter().max_by_key(|set| set.created)),
            (Some(one), None) => Some(one),
            _ => None,
        };
        if let Some(only) = only {
            return if only.replicas == self.desired { Vec::new() } else { vec![to(only, self.desired)] };
        }
        let saturated =
            self.new.as_ref().is_some_and(|new| new.replicas == self.desired && new.available == self.desired);
        if saturated {
            return self.old.iter().filter(|set| set.replicas > 0).map(|set| to(set, 0)).collect();
        }
        self.in_proportion()
    }

    fn in_proportion(&self) -> Vec<Scale> {
        let change = self.most() - self.total();
        let mut sets: Vec<&Set> = self.all().filter(|set| set.replicas > 0).collect();
        // The largest take the rounding; among equals newer ones grow and older ones shrink.
        sets.sort_by_key(|set| (Reverse(set.replicas), set.created));
        if change > 0 {
            sets.sort_by_key(|set| (Reverse(set.replicas), Reverse(set.created)));
        }
        let mut given = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
        for set in &sets {
            let share = if change == 0 { 0 } else { self.share(set, change, given) };
            given += share;
            sizes.push((set.replicas + share).max(0));
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + change - given).max(0);
        }
        sets.iter().zip(sizes).filter(|(set, size)| set.replicas != *size).map(|(set, size)| to(set, size)).collect()
    }

    /// Part of `change` that falls on one set, of which `given` is spent already.
    fn share(&self, set: &Set, change: i32, given: i32) -> i32 {
        let rest = change - given;
        let before = i64::from(set.most_then.unwrap_or_else(|| self.total()).max(1));
        let grown = i64::from(set.replicas) * i64::from(self.most());
        let rounded = (2 * grown + before) / (2 * before);
        let fraction = i32::try_from(rounded).unwrap_or(i32::MAX) - set.replicas;
        if change > 0 { fraction.min(rest) } else { fraction.max(rest) }
    }

    fn grow_new(&self) -> Vec<Scale> {
        let Some(new) = &self.new else { return Vec::new() };
        if new.replicas > self.desired {
            return vec![to(new, self.desired)];
        }
        let room = (self.desired.saturating_add(self.surge) - self.total()).min(self.desired - new.replicas);
        if room > 0 { vec![to(new, new.replicas + room)] } else { Vec::new() }
    }

    /// Gives up old pods: first those that are not available anyway, then
    /// available ones as far as enough others are available.
    fn shrink_old(&self) -> Vec<Scale> {
        let least = self.desired - self.unavailable;
        let new_missing = self.new.as_ref().map_or(0, |new| (new.replicas - new.available).max(0));
        let mut spare = self.total() - least - new_missing;
        if spare <= 0 {
            return Vec::new();
        }
        let mut old: Vec<Set> = self.old.iter().filter(|set| set.replicas > 0).cloned().collect();
        old.sort_by_key(|set| set.created);
        for set in &mut old {
            let sick = (set.replicas - set.available).clamp(0, spare);
            set.replicas -= sick;
            spare -= sick;
        }
        let available: i32 = self.all().map(|set| set.available.min(set.replicas)).sum();
        let mut spare = available - least;
        for set in &mut old {
            let given = set.replicas.min(set.available).clamp(0, spare.max(0));
            set.replicas -= given;
            spare -= given;
        }
        let before = |set: &Set| self.old.iter().find(|old| old.name == set.name).map_or(0, |old| old.replicas);
        old.iter().filter(|set| before(set) != set.replicas).map(|set| to(set, set.replicas)).collect()
    }
}

fn to(set: &Set, size: i32) -> Scale {
    Scale { name: set.name.clone(), to: size }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(name: &str, replicas: i32, available: i32) -> Set {
        let created = Timestamp::from_second(i64::from(name.bytes().next().unwrap_or(0))).unwrap();
        Set { name: name.into(), created, replicas, available, desired_then: None, most_then: None }
    }

    fn rollout(desired: i32, surge: i32, unavailable: i32, new: Option<Set>, old: Vec<Set>) -> Rollout {
        Rollout { desired, surge, unavailable, new, old }
    }

    fn scales(pairs: &[(&str, i32)]) -> Vec<Scale> {
        pairs.iter().map(|(name, to)| Scale { name: (*name).into(), to: *to }).collect()
    }

    #[test]
    fn fence_posts_round_apart_and_are_never_both_zero() {
        let int = |number| IntOrString::Int(number);
        let percent = |text: &str| IntOrString::String(text.into());
        for (surge, unavailable, desired, want) in [
            (None, None, 4, (1, 1)),
            (None, None, 1, (1, 0)),
            (None, None, 10, (3, 2)),
            (Some(int(0)), Some(int(0)), 3, (0, 1)),
            (Some(percent("0%")), Some(percent("30%")), 1, (0, 1)),
            (Some(percent("100%")), Some(percent("100%")), 3, (3, 3)),
            (Some(int(2)), Some(int(9)), 3, (2, 3)),
            (Some(percent("rubbish")), Some(int(1)), 3, (0, 1)),
            (None, None, 0, (0, 1)),
        ] {
            assert_eq!(
                fence_posts(surge.as_ref(), unavailable.as_ref(), desired),
                want,
                "{surge:?} {unavailable:?} {desired}"
            );
        }
    }

    #[test]
    fn steps_of_a_rolling_update() {
        for (why, rollout, want) in [
            ("first creation", rollout(3, 1, 0, Some(set("n", 0, 0)), vec![]), scales(&[("n", 3)])),
            ("surge only", rollout(3, 1, 0, Some(set("n", 0, 0)), vec![set("a", 3, 3)]), scales(&[("n", 1)])),
            ("wait for the new one", rollout(3, 1, 0, Some(set("n", 1, 0)), vec![set("a", 3, 3)]), vec![]),
            ("then one old goes", rollout(3, 1, 0, Some(set("n", 1, 1)), vec![set("a", 3, 3)]), scales(&[("a", 2)])),
            ("unavailable only", rollout(4, 0, 1, Some(set("n", 0, 0)), vec![set("a", 4, 4)]), scales(&[("a", 3)])),
            (
                "sick old pods go first",
                rollout(3, 1, 1, Some(set("n", 1, 0)), vec![set("a", 2, 2), set("b", 1, 0)]),
                scales(&[("b", 0)]),
            ),
            (
                "oldest first",
                rollout(2, 1, 1, Some(set("n", 1, 1)), vec![set("a", 1, 1), set("b", 1, 1)]),
                scales(&[("a", 0), ("b", 0)]),
            ),
            ("too many new", rollout(2, 1, 1, Some(set("n", 3, 3)), vec![]), scales(&[("n", 2)])),
            ("done", rollout(2, 1, 1, Some(set("n", 2, 2)), vec![set("a", 0, 0)]), vec![]),
            ("to nothing", rollout(0, 1, 1, Some(set("n", 0, 0)), vec![set("a", 2, 2)]), scales(&[("a", 0)])),
        ] {
            assert_eq!(rollout.roll(), want, "{why}");
        }
    }

    #[test]
    fn steps_of_a_recreation() {
        let seen = |new, old| rollout(3, 0, 0, Some(set("n", new, 0)), vec![set("a", old, old)]);
        assert_eq!(seen(0, 3).recreate(true), scales(&[("a", 0)]));
        assert_eq!(seen(0, 0).recreate(true), vec![], "old pods still end");
        assert_eq!(seen(0, 0).recreate(false), scales(&[("n", 3)]));
        assert_eq!(seen(3, 0).recreate(false), vec![]);
    }

    #[test]
    fn rescaling_is_proportional_in_the_middle_of_a_rollout() {
        let with = |name: &str, replicas, available, then, most| Set {
            desired_then: Some(then),
            most_then: Some(most),
            ..set(name, replicas, available)
        };
        let one = rollout(5, 1, 1, Some(with("n", 3, 3, 3, 4)), vec![]);
        assert!(one.rescaled());
        assert_eq!(one.rescale(), scales(&[("n", 5)]));
        let middle = rollout(20, 0, 1, Some(with("n", 4, 4, 10, 10)), vec![with("a", 6, 6, 10, 10)]);
        assert_eq!(middle.rescale(), scales(&[("a", 12), ("n", 8)]));
        let down = rollout(5, 0, 1, Some(with("n", 4, 4, 10, 10)), vec![with("a", 6, 6, 10, 10)]);
        assert_eq!(down.rescale(), scales(&[("a", 3), ("n", 2)]));
        let zero = rollout(0, 1, 1, Some(with("n", 4, 4, 10, 10)), vec![with("a", 6, 6, 10, 10)]);
        assert_eq!(zero.rescale(), scales(&[("a", 0), ("n", 0)]));
        let settled = rollout(3, 1, 1, Some(with("n", 3, 3, 3, 4)), vec![]);
        assert!(!settled.rescaled() && settled.rescale().is_empty());
        let saturated = rollout(3, 1, 1, Some(with("n", 3, 3, 3, 4)), vec![with("a", 1, 1, 4, 5)]);
        assert_eq!(saturated.rescale(), scales(&[("a", 0)]));
    }

    fn apply(rollout: &mut Rollout, steps: &[Scale]) {
        for step in steps {
            for set in rollout.new.iter_mut().chain(&mut rollout.old).filter(|set| set.name == step.name) {
                set.replicas = step.to;
                set.available = set.available.min(step.to);
            }
        }
    }

    proptest! {
        /// Whatever order pods become available in, the limits hold at each step
        /// and the rollout ends with the new set alone.
        #[test]
        fn rolling_keeps_its_limits_and_ends(
            desired in 0i32..30,
            surge in 0i32..10,
            unavailable in 0i32..10,
            olds in proptest::collection::vec(0i32..12, 0..4),
            sick in 0i32..4,
            luck in proptest::collection::vec(0i32..5, 1..20),
        ) {
            let (surge, unavailable) =
                fence_posts(Some(&IntOrString::Int(surge)), Some(&IntOrString::Int(unavailable)), desired);
            let old = olds.iter().enumerate().map(|(n, size)| {
                let name = char::from(b'a' + n as u8).to_string();
                set(&name, *size, (size - sick).max(0))
            }).collect();
            let mut rollout = rollout(desired, surge, unavailable, Some(set("n", 0, 0)), old);
            let limit = rollout.total().max(desired + surge);
            let mut rounds = 0;
            loop {
                let available_before: i32 = rollout.all().map(|set| set.available).sum();
                let steps = rollout.roll();
                apply(&mut rollout, &steps);
                let available: i32 = rollout.all().map(|set| set.available).sum();
                prop_assert!(rollout.total() <= limit, "too many: {rollout:?}");
                prop_assert!(
                    available >= available_before.min(desired - unavailable),
                    "too few: {available} of {rollout:?} after {steps:?}"
                );
                let waiting = rollout.new.as_ref().is_some_and(|new| new.available < new.replicas);
                if steps.is_empty() && !waiting {
                    break;
                }
                // The node agent brings up a few of the new pods.
                let up = luck[rounds % luck.len()].max(i32::from(steps.is_empty()));
                if let Some(new) = &mut rollout.new {
                    new.available = (new.available + up).min(new.replicas);
                }
                rounds += 1;
                prop_assert!(rounds < 1000, "no end: {rollout:?}");
            }
            prop_assert_eq!(rollout.new.as_ref().map(|new| new.replicas), Some(desired));
            prop_assert!(rollout.old.iter().all(|set| set.replicas == 0), "left over: {:?}", rollout);
        }

        #[test]
        fn rescaling_reaches_the_limit_exactly(
            desired in 1i32..60, then in 1i32..60, surge in 0i32..5, split in 1i32..59,
        ) {
            let (new, old) = (split.min(then), (then - split.min(then)).max(0));
            prop_assume!(new > 0 && old > 0);
            let with = |name: &str, replicas| Set {
                desired_then: Some(then), most_then: Some(then + surge), ..set(name, replicas, 0)
            };
            let mut rollout = rollout(desired, surge, 1, Some(with("n", new)), vec![with("a", old)]);
            let steps = rollout.rescale();
            apply(&mut rollout, &steps);
            prop_assert_eq!(rollout.total(), desired + surge);
            prop_assert!(rollout.all().all(|set| set.replicas >= 0));
        }
    }
}
