//! `osc run` and its companions as people type them, with the plain runtime: what
//! they print, how they exit, what they leave.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

struct Osc {
    root: tempfile::TempDir,
}

impl Osc {
    /// A root of its own with a busybox image in an archive.
    fn new() -> Self {
        let osc = Self { root: tempfile::tempdir().expect("tempdir") };
        let tree = osc.root.path().join("tree/bin");
        fs::create_dir_all(&tree).expect("mkdir");
        fs::copy("/bin/busybox", tree.join("busybox")).expect("busybox-static is installed");
        for applet in ["sh", "cat", "echo", "sleep", "id"] {
            symlink("busybox", tree.join(applet)).expect("link");
        }
        let (tree, archive) = (osc.path("tree"), osc.path("image.tar"));
        osc.ok(&["image", "build", &tree, "-t", "localhost/box:1", "-o", &archive, "--cmd", r#"["sh"]"#]);
        osc
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_string_lossy().into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osc"));
        command.arg("--root").arg(self.root.path().join("node")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("osc runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

/// A failed test must not leave an engine behind.
impl Drop for Osc {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--purge"]).output();
    }
}

fn said(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn pods_run_in_front_and_behind_and_go_without_a_trace() {
    let osc = Osc::new();
    let archive = osc.path("image.tar");

    let script = "echo out; echo err >&2; exit 7";
    let output =
        osc.run(&["run", "--runtime", "runc", "--image-archive", &archive, "localhost/box:1", "sh", "-c", script]);
    assert_eq!((output.status.code(), said(&output.stdout), said(&output.stderr)), (Some(7), "out\n", "err\n"));

    let output = osc.run(&["run", "--runtime", "runc", "localhost/box:1", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");

    let mut cat = osc.command(&["run", "-i", "--runtime", "runc", "localhost/box:1", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("osc runs");
    cat.stdin.take().expect("piped").write_all(b"to and fro").expect("write");
    let output = cat.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), said(&output.stdout)), (Some(0), "to and fro"));

    let start = [
        "run",
        "--detach",
        "--runtime",
        "runc",
        "--name",
        "one",
        "localhost/box:1",
        "sh",
        "-c",
        "trap exit TERM; echo hi; sleep 1002 & wait",
    ];
    assert_eq!(osc.ok(&start), "default/one\n");
    assert_eq!(osc.ok(&start), "default/one\n", "asking again changes nothing");
    let list: serde_json::Value = serde_json::from_str(&osc.ok(&["ps", "--json"])).expect("json");
    assert_eq!(
        (&list[0]["name"], &list[0]["status"], list.as_array().map(Vec::len)),
        (&"one".into(), &"Running".into(), Some(1))
    );
    let sandbox = list[0]["sandbox"].as_str().expect("id").to_owned();
    assert_eq!(osc.ok(&["logs", &sandbox[..8]]), "hi\n");
    let output = osc.run(&["exec", "one", "sh", "-c", script]);
    assert_eq!((output.status.code(), said(&output.stdout), said(&output.stderr)), (Some(7), "out\n", "err\n"));
    assert_eq!(osc.run(&["exec", "two", "true"]).status.code(), Some(66));

    assert_eq!(osc.ok(&["down", "one"]), "pod default/one deleted\n");
    osc.ok(&["down", "--purge"]);
    let node = osc.root.path().join("node");
    let left = |dir: &Path| fs::read_dir(dir).map(|entries| entries.count()).unwrap_or_default();
    assert_eq!(left(&node), 0, "files are left");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&*node.to_string_lossy()), "mounts are left");
}

#[test]
fn a_bad_manifest_is_told_before_anything_starts() {
    let osc = Osc::new();
    let file = osc.path("pod.yaml");
    fs::write(
        &file,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostPID: true, containers: [{name: c}]}\n",
    )
    .expect("write");
    let output = osc.run(&["run", "-f", &file]);
    let text = said(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains("spec.hostPID: ") && text.contains("spec.containers[0].image: "), "{text}");
    assert!(!osc.root.path().join("node/run").exists(), "an engine was started");
}
