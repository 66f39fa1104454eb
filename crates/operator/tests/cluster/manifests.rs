//! Bundles as administrators see them. `OSC_REFRESH=1` rewrites the files.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use osc_operator::bundle::{self, File};
use serde::Deserialize;
use serde_json::Value;

#[test]
fn bundles_are_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let settings = bundle::Settings { replaces: Some("0.0.9".into()), ..crate::kit::settings() };
    check(&directory.join("kustomize"), &bundle::kustomize(&settings));
    check(&directory.join("olm"), &bundle::olm(&settings));
}

fn check(directory: &Path, files: &[File]) {
    for file in files {
        let path = directory.join(&file.path);
        if std::env::var_os("OSC_REFRESH").is_some() {
            fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("writable");
            fs::write(&path, &file.text).expect("the golden file is writable");
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert!(file.text == wanted, "{} differs; read the difference after OSC_REFRESH=1", path.display());
    }
}

/// Stock kubectl reads each directory as a whole.
#[test]
fn kubectl_renders_every_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    for file in bundle::kustomize(&crate::kit::settings()) {
        let path = directory.path().join(&file.path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("writable");
        fs::write(path, &file.text).expect("writable");
    }
    for (part, kinds) in [
        ("", ["kind: Deployment", "kind: ValidatingWebhookConfiguration", "name: machine-config-daemon"]),
        ("probing", ["kind: DaemonSet", "kind: ServiceAccount", "name: sandboxed-containers-prober"]),
        ("monitoring", ["kind: ServiceMonitor", "kind: PrometheusRule", "console.openshift.io/dashboard"]),
    ] {
        let rendered = Command::new("kubectl").arg("kustomize").arg(directory.path().join(part)).output();
        let rendered = rendered.expect("kubectl is installed");
        assert!(rendered.status.success(), "{part}: {}", String::from_utf8_lossy(&rendered.stderr));
        let text = String::from_utf8(rendered.stdout).expect("text");
        for kind in kinds {
            assert!(text.contains(kind), "{part} has no {kind}:\n{text}");
        }
    }
}

/// What rules and dashboard ask for is what programs of ours export.
#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    // By the monitor, whose image is named from outside.
    let mut known: BTreeSet<String> = [METRIC_OF_THE_MONITOR.to_owned()].into();
    for source in [
        "operator/src/metrics.rs",
        "machine-config/src/controller/metrics.rs",
        "machine-config/src/daemon/metrics.rs",
        "agent/src/metrics/guest.rs",
        "runtime/src/sandbox/monitor/overhead.rs",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        known.extend(text.split('"').skip(1).step_by(2).filter(|word| is_metric(word)).map(str::to_owned));
    }
    let mut asked = 0;
    for expression in expressions() {
        let plain = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        for word in plain.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| is_metric(word)) {
            assert!(known.contains(word), "nobody exports {word}, asked for by {expression}");
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} metrics were found");
}

const METRIC_OF_THE_MONITOR: &str = "kata_monitor_running_shim_count";

fn is_metric(word: &str) -> bool {
    let ours = ["kata_", "osc_", "mcc_", "mcd_"].iter().any(|prefix| word.starts_with(prefix));
    ours && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Everything Prometheus would be asked.
fn expressions() -> Vec<String> {
    let mut found = Vec::new();
    for object in monitoring() {
        let rules = object.pointer("/spec/groups/0/rules").and_then(Value::as_array).into_iter().flatten();
        found.extend(rules.filter_map(|rule| rule["expr"].as_str().map(str::to_owned)));
        let Some(text) = object.pointer("/data/kata-resources.json").and_then(Value::as_str) else { continue };
        let dashboard: Value = serde_json::from_str(text).expect("a dashboard is JSON");
        let panels = dashboard["panels"].as_array().expect("panels").iter();
        found.extend(panels.filter_map(|panel| panel["targets"][0]["expr"].as_str().map(str::to_owned)));
    }
    found
}

fn monitoring() -> Vec<Value> {
    let files = bundle::kustomize(&crate::kit::settings());
    let documents = files.iter().filter(|file| file.path.starts_with("monitoring/"));
    documents
        .flat_map(|file| serde_yaml_ng::Deserializer::from_str(&file.text))
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

/// Whoever sees a reason finds what it means.
#[test]
fn every_reason_has_an_entry_in_the_runbook() {
    use osc_objects::kata_config::{DegradedReason, InProgressReason};
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md");
    let text = fs::read_to_string(path).expect("the runbook");
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let known: Vec<&str> = headings.iter().flat_map(|heading| heading.split(", ")).collect();
    let progress = InProgressReason::ALL.iter().map(|reason| reason.as_str()).filter(|reason| !reason.is_empty());
    for reason in progress.chain(DegradedReason::ALL.iter().map(|reason| reason.as_str())) {
        assert!(known.contains(&reason), "docs/runbook.md says nothing about {reason}");
    }
    let anchors: Vec<String> = known.iter().map(|heading| heading.to_lowercase().replace(' ', "-")).collect();
    let objects = monitoring();
    let rules = objects.iter().filter_map(|object| object.pointer("/spec/groups/0/rules")?.as_array()).flatten();
    for alert in rules.filter(|rule| rule["alert"].is_string()) {
        let entry = alert["annotations"]["runbook"].as_str().expect("every alert has a runbook entry");
        let anchor = entry.strip_prefix("docs/runbook.md#").expect("in the one runbook");
        assert!(anchors.iter().any(|known| known == anchor), "{} leads to no entry: {entry}", alert["alert"]);
    }
}
