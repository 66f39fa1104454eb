//! Stock clients: the `kubectl` in PATH, and the old one of the distribution.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    command::{self, Background, Outcome},
    host::{LIMIT, repository},
};

/// Package of the distribution's own client, version 1.20 in Debian 12.
const PACKAGE: &str = "kubernetes-client";

/// The programs to test with, newest first. The distribution's is unpacked, not
/// installed, as it would take the place of another; where its package cannot be
/// had, that is said and the other has to do.
pub fn programs() -> Vec<PathBuf> {
    let mut programs = vec![PathBuf::from("kubectl")];
    match unpacked(&repository().join("target/tools").join(PACKAGE)) {
        Ok(old) => programs.push(old),
        Err(reason) => eprintln!("{PACKAGE} is not tested with: {reason}"),
    }
    programs
}

/// The client below `dir`, unpacked there when it is not yet.
fn unpacked(dir: &Path) -> Result<PathBuf, String> {
    let program = dir.join("usr/bin/kubectl");
    if program.exists() {
        return Ok(program);
    }
    let parent = dir.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    let fresh = tempfile::tempdir_in(parent).unwrap();
    let script =
        format!("cd '{}' && apt-get -q download {PACKAGE} && dpkg-deb -x {PACKAGE}_*.deb root", fresh.path().display());
    let mut shell = Command::new("sh");
    shell.args(["-ec", &script]);
    let outcome = command::run(shell, b"", LIMIT);
    if outcome.code != 0 {
        return Err(outcome.errors());
    }
    // Whole or not at all; another test may have been faster.
    drop(fs::rename(fresh.path().join("root"), dir));
    if program.exists() { Ok(program) } else { Err(format!("no {} in the package", program.display())) }
}

/// A client that works in one namespace of a cluster.
pub struct Kubectl<'a> {
    /// Access to the cluster; clients keep what they remember beside it.
    pub kubeconfig: &'a Path,
    /// The program.
    pub program: PathBuf,
    /// The namespace.
    pub namespace: String,
}

impl<'a> Kubectl<'a> {
    /// The client in PATH, in namespace `default`.
    pub fn new(kubeconfig: &'a Path) -> Self {
        Self { kubeconfig, program: "kubectl".into(), namespace: "default".into() }
    }

    /// The command for `line`, whose words blanks part, followed by `rest` as it is.
    pub fn command(&self, line: &str, rest: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        command.arg("--kubeconfig").arg(self.kubeconfig).args(["--namespace", &self.namespace]);
        command.arg("--cache-dir").arg(home.join("kubectl-cache"));
        command.args(line.split_whitespace()).args(rest).env("HOME", home);
        command
    }

    /// Runs `line` with `input` to its end.
    #[track_caller]
    pub fn with(&self, line: &str, input: &str) -> Outcome {
        command::run(self.command(line, &[]), input.as_bytes(), 2 * LIMIT)
    }

    /// Runs `line`, followed by `rest`, to its end.
    #[track_caller]
    pub fn run(&self, line: &str, rest: &[&str]) -> Outcome {
        command::run(self.command(line, rest), b"", 2 * LIMIT)
    }

    /// What `line` prints; it must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line, &[]).ok().text()
    }

    /// What `get` says about `what`, which must be there.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_slice(&self.run(&format!("get --output=json {what}"), &[]).ok().stdout).unwrap()
    }

    /// Runs `line` with `input`; it must succeed and print `words`.
    #[track_caller]
    pub fn says(&self, line: &str, input: &str, words: &str) {
        let text = self.with(line, input).ok().text();
        assert!(text.contains(words), "{line}: no {words:?} in {text}");
    }

    /// Runs `line` with `input`; it must fail and say `words`.
    #[track_caller]
    pub fn refuses(&self, line: &str, input: &str, words: &str) {
        let outcome = self.with(line, input);
        let said = format!("{}{}", outcome.text(), outcome.errors());
        assert!(outcome.code != 0 && said.contains(words), "{line}: exit {}, no {words:?} in {said}", outcome.code);
    }

    /// Starts `line`, followed by `rest`, and lets it run.
    pub fn start(&self, line: &str, rest: &[&str]) -> Background {
        Background::start(self.command(line, rest))
    }

    /// Waits until `line` prints `words`.
    #[track_caller]
    pub fn eventually(&self, line: &str, words: &str) {
        let mut last = String::new();
        let seen = command::until(LIMIT, || {
            last = self.run(line, &[]).text();
            last.contains(words)
        });
        assert!(seen, "{line}: no {words:?} in {last}\n{}", self.run("get pods,events", &[]).text());
    }
}
