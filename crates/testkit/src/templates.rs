//! Machines that have booted before, as a host under test keeps them.

use std::{fs, path::PathBuf, time::Duration};

use crate::{command::until, host::Host};

/// How long one may take to be made, with what processor time a busy machine leaves.
const MADE: Duration = Duration::from_secs(300);

/// A configuration of the shim with templates switched off.
pub fn switched_off(configuration: &str) -> String {
    configuration.replace("enable_template = true", "enable_template = false")
}

/// Where they are: beside the guest image of the root the engine was started with.
pub fn store(host: &Host) -> PathBuf {
    host.root.join("var/lib/sandboxed-containers/templates")
}

/// The template there is, once it has been made.
///
/// # Panics
/// When none is made in time.
pub fn template(host: &Host) -> PathBuf {
    let mut found = None;
    let made = until(MADE, || {
        let entries = fs::read_dir(store(host)).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut whole = entries.filter(|path| path.join("manifest.json").exists());
        found = whole.find(|path| !path.ends_with("build"));
        found.is_some()
    });
    assert!(made, "no template in {}: {:?}", store(host).display(), failures(host));
    found.unwrap()
}

/// Why they could not be made.
pub fn failures(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(store(host)).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|e| e == "failed"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// Whether the machine of a running sandbox went on from a template.
pub fn restored(host: &Host, id: &str) -> bool {
    let state = fs::read_to_string(host.root.join("run/kata").join(id).join("state.json")).unwrap();
    state.contains("\"restored\": true")
}
