//! A registry on this machine that wants a password.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::image::Image;

/// `user` with password `secret`, as htpasswd(1) writes it.
const PASSWORDS: &str = "user:$2b$04$d1HZ6m506KqxiC.vkNaVEOWwty3JZTa0HiH.Hbbl0rjyrcJ5d.zNW\n";

pub struct Registry {
    process: Child,
    pub address: String,
}

impl Registry {
    /// Starts it with one image, `private/busybox:1`.
    pub fn start(dir: &Path) -> Self {
        let storage = dir.join("storage");
        store(&storage.join("docker/registry/v2"), "private/busybox", "1");
        fs::write(dir.join("passwords"), PASSWORDS).expect("write");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            storage.display(),
            dir.join("passwords").display()
        );
        fs::write(dir.join("config.yml"), config).expect("write");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("docker-registry starts: `make packages` installs it");
        Self { process, address }
    }

    pub fn image(&self) -> String {
        format!("{}/private/busybox:1", self.address)
    }

    /// Content of a pull secret for it.
    pub fn credentials(&self, password: &str) -> String {
        serde_json::json!({"auths": {&self.address: {"username": "user", "password": password}}}).to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// Files as the registry lays them out.
fn store(root: &Path, name: &str, tag: &str) {
    let write = |path: String, content: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("mkdir");
        fs::write(path, content).expect("write");
    };
    let image = Image::busybox();
    let manifest = image.manifest["digest"].as_str().expect("digest");
    let repository = format!("repositories/{name}");
    for (digest, content) in &image.blobs {
        let hex = digest.trim_start_matches("sha256:");
        write(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), content);
        let kind = if digest == manifest { "_manifests/revisions" } else { "_layers" };
        write(format!("{repository}/{kind}/sha256/{hex}/link"), digest.as_bytes());
    }
    write(format!("{repository}/_manifests/tags/{tag}/current/link"), manifest.as_bytes());
}
