//! Repository checks: `cargo xtask graph`.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// What each crate may depend on inside the workspace. Arrows point down:
/// leaves first, binaries last. `osc-testkit` is for `dev-dependencies` only, and
/// tests may bring in the API server with its identities and controllers.
const ALLOWED: &[(&str, &[&str])] = &[
    ("osc-fault", &[]),
    ("osc-agent-protocol", &["osc-fault"]),
    ("osc-guest-image", &["osc-agent-protocol"]),
    ("osc-schema", &[]),
    ("osc-patch", &["osc-schema"]),
    ("osc-api", &["osc-schema"]),
    ("osc-objects", &[]),
    ("osc-service", &["osc-fault"]),
    ("osc-operator", &["osc-fault", "osc-machine-config", "osc-objects", "osc-service"]),
    ("osc-store", &[]),
    ("osc-access", &[]),
    ("osc-control-plane", &["osc-access", "osc-api", "osc-fault", "osc-patch", "osc-schema", "osc-store"]),
    ("osc-controllers", &["osc-fault"]),
    ("osc-machine-config", &["osc-fault", "osc-objects", "osc-service"]),
    ("osc-agent", &["osc-agent-protocol"]),
    ("osc-runtime", &["osc-agent-protocol"]),
    ("osc-shim", &["osc-runtime", "osc-agent-protocol"]),
    ("osc-share-daemon", &[]),
    ("osc-node", &["osc-runtime", "osc-agent-protocol"]),
    (
        "osc-cli",
        &[
            "osc-access",
            "osc-control-plane",
            "osc-controllers",
            "osc-machine-config",
            "osc-node",
            "osc-objects",
            "osc-operator",
            "osc-guest-image",
            "osc-runtime",
            "osc-agent-protocol",
        ],
    ),
    (
        "osc-testkit",
        &["osc-guest-image", "osc-machine-config", "osc-node", "osc-objects", "osc-runtime", "osc-agent-protocol"],
    ),
    ("osc-xtask", &[]),
];

const TEST_ONLY: [&str; 4] = ["osc-access", "osc-control-plane", "osc-controllers", "osc-testkit"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("graph") => check_graph(&metadata()?),
        _ => bail!("usage: cargo xtask graph   (checks that crates depend only downwards)"),
    }
}

fn metadata() -> anyhow::Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata does not start")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata is not understood")
}

fn check_graph(metadata: &Metadata) -> anyhow::Result<()> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(may) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("{} is not in the table of xtask/src/main.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let name = dependency.name.as_str();
            let testing = dependency.kind.as_deref() == Some("dev");
            let fine = may.contains(&name) || (testing && TEST_ONLY.contains(&name));
            if !fine {
                wrong.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    ensure!(wrong.is_empty(), "crate graph:\n  {}", wrong.join("\n  "));
    println!("crate graph: {} crates, all arrows point down", metadata.packages.len());
    Ok(())
}
