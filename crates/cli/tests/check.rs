//! `osc check` on this machine, as a script sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Exit code and report.
fn check(root: &Path) -> (Option<i32>, Value) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_osc")).args(["check", "--json", "--root"]).arg(root).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["requirements"].as_array().unwrap();
    all.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name} is not in {report}"))
}

fn configure(root: &Path, text: &str) {
    let dir = root.join("etc/kata-containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("configuration.toml"), text).unwrap();
}

#[test]
fn what_is_missing_comes_with_its_cure_and_exit_code_1() {
    let root = tempfile::tempdir().unwrap();
    let paths = "path = \"/bin/false\"\nvirtio_fs_daemon = \"/nonexistent\"\n";
    configure(root.path(), &format!("[hypervisor.qemu]\n{paths}"));
    let (code, report) = check(root.path());
    assert_eq!((code, &report["able"]), (Some(1), &Value::Bool(false)));
    for name in ["QEMU", "virtiofsd", "guest image"] {
        assert_eq!(finding(&report, name)["verdict"], "missing", "{name}");
    }
    for finding in report["requirements"].as_array().unwrap() {
        let wants_cure = finding["verdict"] != "ok";
        assert_eq!(finding["cure"].is_string(), wants_cure, "{finding}");
    }
}

#[test]
fn a_wrong_configuration_is_a_finding_that_names_the_problem() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "[hypervisor.qemu]\ndefault_vcpuz = 1\n");
    let (code, report) = check(root.path());
    assert_eq!(code, Some(1));
    let finding = finding(&report, "configuration");
    assert_eq!(finding["verdict"], "missing");
    assert!(finding["found"].as_str().unwrap().contains("default_vcpuz"), "{finding}");
}

#[test]
fn the_network_of_a_pod_can_be_set_up_here() {
    let root = tempfile::tempdir().unwrap();
    let (_, report) = check(root.path());
    for name in ["privileges", "network redirection", "network plugins", "container engine"] {
        assert_eq!(finding(&report, name)["verdict"], "ok", "{report}");
    }
}
