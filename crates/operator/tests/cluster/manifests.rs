//! Bundles as administrators see them. `OSC_REFRESH=1` rewrites the files.

use std::{fs, path::Path};

use osc_operator::bundle::{self, File};

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
}
