//! Durations of calls, by action.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use super::Text;

/// Upper bounds of the buckets in milliseconds; dashboards expect these.
const BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    millis: f64,
}

/// A histogram per action. Actions are names of methods, so there are few.
#[derive(Debug, Default)]
pub struct Histogram(Mutex<BTreeMap<&'static str, Counts>>);

impl Histogram {
    /// Counts one call of `action` that took `span`.
    pub fn observe(&self, action: &'static str, span: Duration) {
        let millis = span.as_secs_f64() * 1e3;
        let mut actions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counts = actions.entry(action).or_default();
        for (bound, bucket) in BOUNDS.iter().zip(&mut counts.buckets) {
            if millis <= *bound as f64 {
                *bucket += 1;
            }
        }
        counts.count += 1;
        counts.millis += millis;
    }

    /// Writes the family `name`.
    pub fn render(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, "histogram", help);
        let actions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (bucket, sum, count) = (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
        for (action, counts) in actions.iter() {
            for (bound, seen) in BOUNDS.iter().zip(counts.buckets) {
                text.sample(&bucket, &[("action", action), ("le", &bound.to_string())], seen);
            }
            text.sample(&bucket, &[("action", action), ("le", "+Inf")], counts.count);
            text.sample(&sum, &[("action", action)], counts.millis);
            text.sample(&count, &[("action", action)], counts.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::default();
        for millis in [1, 3, 600] {
            histogram.observe("start", Duration::from_millis(millis));
        }
        let mut text = Text::default();
        histogram.render(&mut text, "h", "H.");
        let text = text.finish();
        for line in [
            "h_bucket{action=\"start\",le=\"1\"} 1",
            "h_bucket{action=\"start\",le=\"2\"} 1",
            "h_bucket{action=\"start\",le=\"4\"} 2",
            "h_bucket{action=\"start\",le=\"512\"} 2",
            "h_bucket{action=\"start\",le=\"+Inf\"} 3",
            "h_sum{action=\"start\"} 604",
            "h_count{action=\"start\"} 3",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
        }
    }
}
