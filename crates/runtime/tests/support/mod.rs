//! What several tests with a real guest need.

use std::path::{Path, PathBuf};

/// The guest image: that of `OSC_GUEST_DIR`, by default the one `make build` makes.
///
/// # Panics
/// When there is none.
pub fn guest() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    let dir = std::env::var_os("OSC_GUEST_DIR").map_or(built, PathBuf::from);
    assert!(dir.join("vmlinux").exists(), "no guest image in {}: run `make build` or set OSC_GUEST_DIR", dir.display());
    dir
}
