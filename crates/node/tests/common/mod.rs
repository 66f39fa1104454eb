//! A private engine with a busybox image, and what it leaves.

mod image;

use std::{fs, path::Path};

use osc_node::{
    engine::{Engine, Kata},
    pod::{Manifest, Pods},
};
use osc_runtime::dirs::Dirs;

/// Name of the test image.
pub const IMAGE: &str = "localhost/osc-test-busybox:1";

/// An engine below a temporary root.
pub struct Node {
    pub root: tempfile::TempDir,
    pub engine: Engine,
    pub pods: Pods,
}

impl Node {
    pub async fn start() -> Self {
        let root = tempfile::tempdir().expect("tempdir");
        let engine = Engine::new(Dirs::new(root.path()));
        let kata = Kata { shim: "/usr/bin/false".into(), configuration: "# none\n".into() };
        let client = engine.start(Some(&kata)).await.expect("engine");
        let archive = root.path().join("busybox.tar");
        fs::write(&archive, image::archive(IMAGE)).expect("write");
        engine.import(&client, &archive).await.expect("import");
        let pods = Pods::new(engine.paths(), client);
        Self { root, engine, pods }
    }

    /// The end of what containerd had to say.
    pub fn log(&self) -> String {
        fs::read_to_string(self.engine.paths().log()).unwrap_or_default()
    }

    /// Ends the engine; nothing of it may be left.
    pub async fn stop(self) {
        self.engine.stop(true).await.expect("stop");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&*self.root.path().to_string_lossy()), "mounts are left: {mounts}");
        assert!(!Path::new("/sys/class/net").join(self.engine.paths().bridge()).exists());
    }
}

/// A failed test must not leave an engine behind either.
impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            let engine = self.engine.clone();
            let stop = move || tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(engine.stop(true)));
            let _ = std::thread::spawn(stop).join();
        }
    }
}

/// The only pod of a manifest.
pub fn manifest(text: &str) -> Manifest {
    let mut manifests = Manifest::read("test", &text.replace("IMAGE", IMAGE)).expect("good manifest");
    assert_eq!(manifests.len(), 1);
    manifests.remove(0)
}
