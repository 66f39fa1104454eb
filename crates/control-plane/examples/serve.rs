//! Serves an API server from a directory until it is interrupted:
//! `cargo run -p osc-control-plane --example serve -- DIRECTORY [ADDRESS]`.
//!
//! Writes `DIRECTORY/kubeconfig`. There are no nodes and no controllers: objects
//! are stored and nothing happens to them.

use std::path::PathBuf;

use osc_control_plane::{Config, ControlPlane};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory: PathBuf = arguments.next().ok_or("usage: serve DIRECTORY [ADDRESS]")?.into();
    let mut config = Config::new(&directory);
    if let Some(address) = arguments.next() {
        config.listen = address.parse()?;
    }
    let plane = ControlPlane::open(config).await?;
    let kubeconfig = directory.join("kubeconfig");
    tokio::fs::write(&kubeconfig, plane.administrator()?).await?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    tokio::signal::ctrl_c().await?;
    plane.shutdown().await;
    Ok(())
}
