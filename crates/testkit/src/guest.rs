//! Guests that misbehave, made from the real guest image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use osc_guest_image::cpio::Archive;

use crate::host::built;

/// An initial RAM file system like the real one, with `init` as first process.
/// The kernel unpacks archives one after another; the last file of a name wins.
pub fn initrd_with_init(init: &[u8], into: &Path) -> PathBuf {
    let mut archive = Archive::new();
    archive.file("init", 0o755, init);
    let mut bytes = fs::read(built("target/guest/initrd.img")).unwrap();
    bytes.extend(archive.finish());
    let file = into.join("initrd.img");
    fs::write(&file, bytes).unwrap();
    file
}

/// A static program from `fixtures/NAME.rs`.
pub fn fixture(name: &str, into: &Path) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.rs"));
    let program = into.join(name);
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .args(["--target", "x86_64-unknown-linux-gnu", "-o"])
        .args([&program, &source])
        .status();
    assert!(status.unwrap().success(), "{} does not compile", source.display());
    fs::read(program).unwrap()
}
