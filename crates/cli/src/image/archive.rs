//! Writes an image as an OCI image layout (image-spec 1.0, `image-layout.md`)
//! inside a tar archive, the form engines import.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ImageError, layer};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// How containers of the image are started.
#[derive(Debug, Default)]
pub struct Config {
    /// Program that is always run.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments.
    pub cmd: Option<Vec<String>>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// User and group.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `PORT/PROTOCOL`.
    pub ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A finished archive.
#[derive(Debug, Serialize)]
pub struct Built {
    /// Full name of the image.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Size of the layer.
    pub bytes: u64,
    /// Where the archive is.
    pub archive: PathBuf,
}

/// Writes the image of folder `dir` to `out`, which is replaced as a whole.
pub fn write(dir: &Path, name: &str, config: &Config, out: &Path) -> Result<Built, ImageError> {
    let failed = |source| ImageError::Write { path: out.to_owned(), source };
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut blob = tempfile::tempfile_in(parent).map_err(failed)?;
    let layer = layer::write(dir, io::BufWriter::new(&blob), out)?;
    blob.rewind().map_err(failed)?;

    let config = to_bytes(&config_json(config, &layer));
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &digest(&config), config.len() as u64),
        "layers": [descriptor(LAYER, &layer.digest, layer.bytes)],
    }));
    let manifest_digest = digest(&manifest);
    let index = to_bytes(&index_json(name, &manifest_digest, manifest.len() as u64));

    let new = tempfile::Builder::new()
        .prefix(".image-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(failed)?;
    let small = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        (blob_path(&digest(&config)), config),
        (blob_path(&manifest_digest), manifest),
    ];
    write_tar(new.as_file(), &small, &blob_path(&layer.digest), layer.bytes, &blob).map_err(failed)?;
    new.persist(out).map_err(|error| failed(error.error))?;
    Ok(Built {
        name: name.to_owned(),
        digest: format!("sha256:{manifest_digest}"),
        bytes: layer.bytes,
        archive: out.to_owned(),
    })
}

fn write_tar(out: &File, small: &[(String, Vec<u8>)], layer: &str, bytes: u64, blob: &File) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(out));
    let mut add = |path: &str, bytes: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes);
        tar.append_data(&mut header, path, content)
    };
    for (path, content) in small {
        add(path, content.len() as u64, &mut content.as_slice())?;
    }
    add(layer, bytes, &mut io::BufReader::new(blob))?;
    tar.into_inner()?.flush()
}

fn config_json(config: &Config, layer: &layer::Layer) -> Value {
    let mut process = serde_json::Map::new();
    let mut set = |key: &str, value: Value| process.insert(key.to_owned(), value);
    set("Env", config.env.iter().map(|(name, value)| format!("{name}={value}")).collect());
    if let Some(entrypoint) = &config.entrypoint {
        set("Entrypoint", json!(entrypoint));
    }
    if let Some(cmd) = &config.cmd {
        set("Cmd", json!(cmd));
    }
    if let Some(user) = &config.user {
        set("User", json!(user));
    }
    if let Some(workdir) = &config.workdir {
        set("WorkingDir", json!(workdir));
    }
    if !config.ports.is_empty() {
        let ports: BTreeMap<_, _> = config.ports.iter().map(|port| (port, json!({}))).collect();
        set("ExposedPorts", json!(ports));
    }
    if !config.labels.is_empty() {
        set("Labels", json!(config.labels));
    }
    // A fixed time: the image is as old as its content, which has no time.
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.diff_id)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "osc image build"}],
    })
}

/// The name is there twice: containerd reads its own annotation first, all
/// other tools the standard one.
fn index_json(name: &str, manifest: &str, bytes: u64) -> Value {
    let mut entry = descriptor(MANIFEST, manifest, bytes);
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
}

fn descriptor(media_type: &str, digest: &str, bytes: u64) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes})
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

/// The name Go, and so the image format, has for this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use super::*;

    fn config() -> Config {
        Config {
            cmd: Some(vec!["/bin/tool".into()]),
            env: vec![("A".into(), "b".into())],
            user: Some("1001".into()),
            ports: vec!["8080/tcp".into()],
            ..Config::default()
        }
    }

    fn files(archive: &Path) -> HashMap<String, Vec<u8>> {
        let mut files = HashMap::new();
        for entry in tar::Archive::new(File::open(archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        files
    }

    #[test]
    fn every_digest_leads_to_its_blob() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("tool"), "x").unwrap();
        let out = dir.path().join("image.tar");
        let built = write(&tree, "localhost/a:latest", &config(), &out).unwrap();
        let files = files(&out);
        let follow = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
            let blob = &files[&blob_path(&digest)];
            assert_eq!(super::digest(blob), digest);
            assert_eq!(descriptor["size"], blob.len());
            blob.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/a:latest");
        assert_eq!(index["manifests"][0]["digest"], built.digest);
        let manifest: Value = serde_json::from_slice(&follow(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "/bin/tool");
        assert_eq!(config["config"]["ExposedPorts"], json!({"8080/tcp": {}}));
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(follow(&manifest["layers"][0]).as_slice()).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
    }

    #[test]
    fn equal_folders_give_equal_archives() {
        let dir = tempfile::tempdir().unwrap();
        let mut archives = Vec::new();
        for name in ["one", "two"] {
            let tree = dir.path().join(name);
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("tool"), "x").unwrap();
            let out = dir.path().join(format!("{name}.tar"));
            write(&tree, "localhost/a:latest", &config(), &out).unwrap();
            archives.push(fs::read(out).unwrap());
        }
        assert!(archives[0] == archives[1]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "no temporary file is left");
    }
}
