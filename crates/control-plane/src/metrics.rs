//! `/metrics`: what was asked and answered, in the text format of Prometheus.
//!
//! Names and labels are those of kube-apiserver where it has the same thing. Labels come from the resources that are
//! served, never from the request alone, so that strangers cannot make series.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{api::Api, request::Verb, resources::Served};

/// Upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// What a request is counted as.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

impl Asked {
    /// A request for a resource that is served.
    pub fn of(verb: Verb, served: &Served, subresource: &str) -> Self {
        let known = served.resource.subresource(subresource).map(|_| subresource).unwrap_or_default();
        Self {
            verb: verb.label(),
            group: served.resource.group.clone(),
            version: served.resource.version.clone(),
            resource: served.resource.plural.clone(),
            subresource: known.to_owned(),
        }
    }

    fn labels(&self) -> String {
        let Self { verb, group, version, resource, subresource } = self;
        format!(
            "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{subresource}\""
        )
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    answers: BTreeMap<(Asked, u16), u64>,
    durations: BTreeMap<Asked, Durations>,
}

#[derive(Debug, Default)]
struct Durations {
    /// One for each of [`BUCKETS`].
    within: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Metrics {
    /// Counts an answer. Watches count, but take as long as the client likes.
    pub fn count(&self, asked: Asked, code: u16, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.verb != Verb::Watch.label() && !asked.verb.is_empty() {
            let durations = counts.durations.entry(asked.clone()).or_default();
            durations.count += 1;
            durations.sum += took;
            for (bucket, end) in durations.within.iter_mut().zip(BUCKETS) {
                *bucket += u64::from(took.as_secs_f64() <= end);
            }
        }
        *counts.answers.entry((asked, code)).or_default() += 1;
    }

    fn render(&self, out: &mut String) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        head(out, "apiserver_request_total", "counter", "Requests answered, by what was asked and the code.");
        for ((asked, code), count) in &counts.answers {
            let _ = writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", asked.labels());
        }
        let name = "apiserver_request_duration_seconds";
        head(out, name, "histogram", "Time to the answer, watches aside.");
        for (asked, durations) in &counts.durations {
            let labels = asked.labels();
            for (end, within) in BUCKETS.iter().zip(durations.within) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{end}\"}} {within}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", durations.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", durations.sum.as_secs_f64());
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", durations.count);
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Everything there is to tell about this server.
pub(crate) fn text(api: &Api) -> String {
    let mut out = String::new();
    api.metrics.render(&mut out);
    let gauges = [
        ("apiserver_current_inflight_requests", "Requests being served, watches aside.", Some(api.load.requests_now())),
        ("apiserver_longrunning_watches", "Watches being served.", Some(api.load.watches_now())),
        (
            "apiserver_storage_revision",
            "Revision of the newest change in the store.",
            api.store.revision().ok().and_then(|revision| usize::try_from(revision.get()).ok()),
        ),
        ("process_resident_memory_bytes", "Resident memory of the process.", resident_bytes()),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {value}");
        }
    }
    out
}

/// Resident memory as the kernel counts it.
fn resident_bytes() -> Option<usize> {
    // A file of the kernel's: reading it blocks no longer than a system call.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_times_are_told() {
        let metrics = Metrics::default();
        let asked = |verb| Asked { verb, version: "v1".into(), resource: "pods".into(), ..Asked::default() };
        metrics.count(asked("GET"), 200, Duration::from_millis(3));
        metrics.count(asked("GET"), 404, Duration::from_millis(300));
        metrics.count(asked("WATCH"), 200, Duration::from_secs(9));
        let mut text = String::new();
        metrics.render(&mut text);
        let labels = r#"verb="GET",group="",version="v1",resource="pods",subresource="""#;
        for line in [
            format!("apiserver_request_total{{{labels},code=\"404\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.001\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.5\"}} 2"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
        }
        assert!(text.contains("verb=\"WATCH\"") && !text.contains("seconds_count{verb=\"WATCH\""), "{text}");
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
