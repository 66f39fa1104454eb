//! An image with the distribution's static busybox, made of nothing else.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Commands of the image.
const APPLETS: [&str; 17] = [
    "sh", "cat", "echo", "sleep", "id", "ls", "hostname", "head", "touch", "stat", "ps", "true", "printf", "grep",
    "rm", "nc", "env",
];

/// The parts of an image, by digest.
pub struct Image {
    /// Layer, configuration and manifest.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// What refers to the manifest.
    pub manifest: Value,
}

impl Image {
    pub fn busybox() -> Self {
        let mut image = Self { blobs: Vec::new(), manifest: Value::Null };
        let layer = image.add("application/vnd.oci.image.layer.v1.tar", layer());
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = image.add("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        image.manifest = image.add(kind, manifest.to_string().into_bytes());
        image
    }

    fn add(&mut self, kind: &str, content: Vec<u8>) -> Value {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let descriptor = json!({"mediaType": kind, "digest": digest, "size": content.len()});
        self.blobs.push((digest, content));
        descriptor
    }
}

/// An OCI layout that holds the image under `name`.
pub fn archive(name: &str) -> Vec<u8> {
    let Image { blobs, mut manifest } = Image::busybox();
    let mut layout = tar::Builder::new(Vec::new());
    for (digest, content) in &blobs {
        file(&mut layout, &format!("blobs/{}", digest.replace(':', "/")), content, 0o644);
    }
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    file(&mut layout, "index.json", index.to_string().as_bytes(), 0o644);
    file(&mut layout, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    layout.into_inner().expect("layout")
}

fn layer() -> Vec<u8> {
    let busybox = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox")).expect("busybox-static");
    let mut layer = tar::Builder::new(Vec::new());
    file(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in APPLETS {
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
    layer.into_inner().expect("layer")
}

fn file(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, content).expect("append");
}
