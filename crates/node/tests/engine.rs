//! A real containerd below a temporary root.

use std::{path::Path, process::Command};

use osc_node::engine::{Engine, EngineError, Kata, PAUSE_IMAGE};
use osc_runtime::dirs::Dirs;

fn kata() -> Kata {
    Kata { shim: "/usr/local/bin/containerd-shim-kata-v2".into(), configuration: "# none\n".into() }
}

fn engine(root: &Path) -> Engine {
    Engine::new(Dirs::new(root))
}

#[tokio::test]
async fn start_adopt_survive_a_kill_and_leave_nothing() -> Result<(), EngineError> {
    let root = tempfile::tempdir().expect("tempdir");
    // Deep enough that a socket path would not fit.
    let deep = root.path().join("d".repeat(60)).join("e".repeat(60));
    let engine = engine(&deep);
    assert!(engine.running().is_none());
    let client = engine.start(Some(&kata())).await?;
    assert!(client.image(PAUSE_IMAGE).await?.is_some());

    let pid = |engine: &Engine| std::fs::read_to_string(engine.paths().pid_file()).expect("pid file");
    let first = pid(&engine);
    engine.start(Some(&kata())).await?;
    assert_eq!(pid(&engine), first, "a running engine is adopted");

    assert!(Command::new("kill").args(["-9", &first]).status().expect("kill").success());
    while engine.running().is_some() {
        tokio::task::yield_now().await;
    }
    engine.start(Some(&kata())).await?;
    assert_ne!(pid(&engine), first, "a killed engine is replaced");

    engine.stop(true).await?;
    engine.stop(true).await?;
    assert!(engine.running().is_none());
    assert!(!engine.paths().dirs().run().exists() && !engine.paths().dirs().state().exists());
    assert!(!engine.paths().short_run().exists());
    Ok(())
}

#[tokio::test]
async fn a_broken_archive_is_refused_with_a_reason() -> Result<(), EngineError> {
    let root = tempfile::tempdir().expect("tempdir");
    let engine = engine(root.path());
    let client = engine.start(Some(&kata())).await?;
    let archive = root.path().join("broken.tar");
    std::fs::write(&archive, "not a tar").expect("write");
    let refused = engine.import(&client, &archive).await;
    assert!(matches!(refused, Err(EngineError::Tool { .. })), "{refused:?}");
    engine.stop(true).await
}
