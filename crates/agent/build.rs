//! Links the agent of a guest to a fixed address.
//!
//! The agent starts itself for every process of a container. A program that can be
//! anywhere in memory corrects 7000 addresses first, which is most of an `exec` when the
//! processor is emulated. Its stack, heap and mappings still are at random places.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        for word in ["-static", "-no-pie"] {
            println!("cargo:rustc-link-arg-bins={word}");
        }
    }
}
