//! Loading image archives. The runtime interface has no call for it, so
//! containerd's own client does it.

use std::{path::Path, process::Stdio, time::Duration};

use osc_runtime::deadline::Deadline;
use tokio::process::Command;

use super::{POLL, error::EngineError, paths::Paths, process};
use crate::cri::Client;

/// Unpacking a large image on a slow disk.
const IMPORT: Duration = Duration::from_secs(600);
/// containerd tells its CRI plugin about new images by an event.
const VISIBLE: Duration = Duration::from_secs(20);

pub(super) async fn import(paths: &Paths, client: &Client, archive: &Path) -> Result<Vec<String>, EngineError> {
    let program = process::which("ctr").ok_or(EngineError::Missing { program: "ctr", package: "containerd" })?;
    let mut command = Command::new(program);
    command.arg("--address").arg(paths.socket()).args(["--namespace", "k8s.io", "images", "import"]);
    command.arg(archive).stdin(Stdio::null()).kill_on_drop(true);
    let failed =
        |output: String| EngineError::Tool { command: format!("ctr images import {}", archive.display()), output };
    let output = tokio::time::timeout(IMPORT, command.output())
        .await
        .map_err(|_| failed(format!("no end after {IMPORT:?}")))?
        .map_err(|cause| failed(cause.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let names = names(&String::from_utf8_lossy(&output.stdout));
    let deadline = Deadline::after(VISIBLE);
    for name in &names {
        while client.image(name).await?.is_none() {
            if deadline.passed() {
                return Err(failed(format!("{name} does not appear in the image list")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(names)
}

/// Image names in the output of `ctr images import`: `unpacking NAME (DIGEST)...done`.
fn names(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.trim().strip_prefix("unpacking "));
    lines.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_output() {
        let output = "unpacking localhost/a:1 (sha256:00)...done\nunpacking docker.io/library/b:latest (sha256:01)...";
        assert_eq!(names(output), ["localhost/a:1", "docker.io/library/b:latest"]);
        assert!(names("done\n").is_empty());
    }
}
