//! `osc image build` against a real container engine: what it writes must be
//! imported under the name it was given, and unpacked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A containerd of our own, stopped when the test ends.
struct Containerd<'a> {
    child: Child,
    dir: &'a Path,
}

impl<'a> Containerd<'a> {
    fn start(dir: &'a Path) -> Self {
        let config = dir.join("config.toml");
        let text = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(&config, format!("{text}[ttrpc]\naddress = \"{}/t\"\n", dir.display())).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--state")
            .arg(dir.join("state"))
            .arg("--address")
            .arg(dir.join("s"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut engine = Self { child, dir };
        engine.wait_until_it_answers();
        engine
    }

    fn wait_until_it_answers(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            if self.ctr().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success() {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "containerd ended:\n{}", log());
            assert!(Instant::now() < until, "containerd does not answer:\n{}", log());
        }
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--connect-timeout").arg("1s").arg("--address").arg(self.dir.join("s"));
        ctr
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.ctr().args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn osc(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_osc")).args(arguments).output().unwrap()
}

#[test]
fn a_container_engine_imports_the_archive_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("tree"), dir.path().join("hello.tar"));
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/hello"), "#!/bin/sh\n").unwrap();
    let output = osc(&[
        "image",
        "build",
        tree.to_str().unwrap(),
        "-t",
        "localhost/hello",
        "-o",
        archive.to_str().unwrap(),
        "--user",
        "1001:5",
        "--cmd",
        r#"["/bin/hello"]"#,
        "--env",
        "LANG=C",
        "--json",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let engine = Containerd::start(dir.path());
    engine.run(&["images", "import", "--snapshotter", "native", archive.to_str().unwrap()]);
    let images = engine.run(&["images", "list"]);
    let image = images.lines().find(|line| line.starts_with("localhost/hello:latest ")).expect(&images);
    assert!(image.contains(built["digest"].as_str().unwrap()), "{image}");
    let snapshots = engine.run(&["snapshots", "--snapshotter", "native", "list"]);
    assert_eq!(snapshots.lines().count(), 2, "one unpacked layer: {snapshots}");
}

#[test]
fn failures_say_what_to_do_and_have_their_exit_code() {
    for (arguments, code, says) in [
        (&["image", "build", "/nonexistent", "-t", "a"][..], 65, "is not a folder"),
        (&["image", "build", "/etc", "-t", "A/B"][..], 65, "write it like localhost/hello:latest"),
        (&["guest", "info", "--dir", "/nonexistent"][..], 66, "run `osc guest build`"),
        (&["guest", "build", "--agent", "/nonexistent"][..], 66, "build it with `make build`"),
        (&["nonsense"][..], 2, "unrecognized subcommand"),
    ] {
        let output = osc(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}
