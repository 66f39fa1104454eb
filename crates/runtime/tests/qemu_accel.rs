//! The KVM trial on this machine, whatever its KVM is worth.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::guest;
use osc_runtime::{
    config::Config,
    dirs::Dirs,
    qemu::{Accelerator, accel},
};
use tempfile::TempDir;

fn configuration(dir: &Path, guest: &Path, accelerator: &str) -> Config {
    let file = dir.join("configuration.toml");
    let text = format!(
        "[hypervisor.qemu]\npath = \"/usr/bin/qemu-system-x86_64\"\nkernel = {:?}\ninitrd = {:?}\n\
         accelerator = \"{accelerator}\"\n",
        guest.join("vmlinux"),
        guest.join("initrd.img")
    );
    fs::write(&file, text).unwrap();
    Config::load(Some(&file), None, &Dirs::new(dir)).unwrap()
}

#[tokio::test]
async fn the_trial_ends_and_is_remembered() {
    let guest = guest();
    let dir = TempDir::new().unwrap();
    let dirs = Dirs::new(dir.path());
    for (word, want) in [("kvm", "kvm"), ("tcg", "tcg")] {
        let verdict = accel::resolve(&configuration(dir.path(), &guest, word).hypervisor, &dirs).await;
        assert_eq!(verdict.accelerator.to_string(), want);
    }
    assert!(!dirs.state().exists(), "an explicit choice needs no trial");

    let config = configuration(dir.path(), &guest, "auto");
    let began = Instant::now();
    let (first, second) =
        tokio::join!(accel::resolve(&config.hypervisor, &dirs), accel::resolve(&config.hypervisor, &dirs));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!((first.accelerator, &first.reason), (second.accelerator, &second.reason));
    if Path::new("/dev/kvm").exists() {
        assert!(first.cached != second.cached, "one tries, the other waits for it");
        let third = accel::resolve(&config.hypervisor, &dirs).await;
        assert!(third.cached, "{third:?}");
    } else {
        assert_ne!(first.accelerator, Accelerator::Kvm);
    }
    let left: Vec<_> =
        fs::read_dir(dirs.state()).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "accelerator.json" || name == "accelerator.lock"), "{left:?}");
}
