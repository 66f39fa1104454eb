//! A private engine with a busybox image, and what it leaves.

use std::{fs, path::Path};

use osc_node::{
    engine::{Engine, Kata},
    pod::{Manifest, Pods},
};
use osc_runtime::dirs::Dirs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

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
        let client = engine.start(&kata).await.expect("engine");
        let archive = root.path().join("busybox.tar");
        fs::write(&archive, busybox_image()).expect("write");
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

/// An OCI layout with the distribution's static busybox and links for it.
fn busybox_image() -> Vec<u8> {
    let busybox = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox")).expect("busybox-static");
    let mut layer = tar::Builder::new(Vec::new());
    file(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in
        ["sh", "cat", "echo", "sleep", "id", "ls", "hostname", "head", "touch", "stat", "ps", "true", "printf", "grep"]
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("link");
    }
    file(&mut layer, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644);
    for dir in ["tmp/", "proc/", "sys/", "dev/"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o1777);
        layer.append_data(&mut header, dir, &[][..]).expect("dir");
    }
    let layer = layer.into_inner().expect("layer");
    let mut layout = tar::Builder::new(Vec::new());
    let layer_digest = blob(&mut layout, &layer);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let config = json_descriptor(&mut layout, "application/vnd.oci.image.config.v1+json", &config);
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len(),
    });
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let mut manifest = json_descriptor(&mut layout, "application/vnd.oci.image.manifest.v1+json", &manifest);
    manifest["annotations"] = json!({"io.containerd.image.name": IMAGE});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    file(&mut layout, "index.json", index.to_string().as_bytes(), 0o644);
    file(&mut layout, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    layout.into_inner().expect("layout")
}

fn json_descriptor(layout: &mut tar::Builder<Vec<u8>>, kind: &str, content: &Value) -> Value {
    let content = content.to_string();
    json!({"mediaType": kind, "digest": blob(layout, content.as_bytes()), "size": content.len()})
}

fn blob(layout: &mut tar::Builder<Vec<u8>>, content: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(content));
    file(layout, &format!("blobs/sha256/{digest}"), content, 0o644);
    format!("sha256:{digest}")
}

fn file(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, content).expect("append");
}
