//! Programs: run, not just looked for.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use super::finding::Finding;

const PATIENCE: Duration = Duration::from_secs(20);
/// Older ones lack what the command line uses.
const OLDEST_QEMU: (u32, u32) = (7, 0);
const OLDEST_VIRTIOFSD: (u32, u32) = (1, 5);

/// The QEMU binary the configuration names.
pub async fn qemu(path: &Path) -> Finding {
    let cure = "install qemu-system-x86 7.0 or newer, or set `path` in section [hypervisor.qemu] of the configuration";
    judge("QEMU", path, version(path).await, OLDEST_QEMU, cure)
}

/// The daemon of the shared file system the configuration names.
pub async fn virtiofsd(path: &Path) -> Finding {
    let cure = "install virtiofsd 1.5 or newer (`make build` does), or set `virtio_fs_daemon` in section \
                [hypervisor.qemu] of the configuration";
    judge("virtiofsd", path, version(path).await, OLDEST_VIRTIOFSD, cure)
}

fn judge(
    name: &'static str,
    path: &Path,
    version: Result<String, String>,
    oldest: (u32, u32),
    cure: &'static str,
) -> Finding {
    match version {
        Err(problem) => Finding::missing(name, format!("{}: {problem}", path.display()), cure),
        Ok(line) => match number(&line) {
            Some(found) if found < oldest => Finding::missing(name, format!("{line} in {}", path.display()), cure),
            _ => Finding::ok(name, format!("{line} in {}", path.display())),
        },
    }
}

/// First line of what `program --version` prints.
pub async fn version(program: impl AsRef<OsStr>) -> Result<String, String> {
    let output = run(Command::new(program).arg("--version")).await?;
    Ok(output.lines().next().unwrap_or_default().trim().to_owned())
}

/// Runs `command` and returns its standard output, or why there is none.
pub async fn run(command: &mut Command) -> Result<String, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => return Err(format!("no answer within {PATIENCE:?}")),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(match stderr.lines().last() {
        Some(line) => line.trim().to_owned(),
        None => output.status.to_string(),
    })
}

/// The first `MAJOR.MINOR` in a version line.
pub fn number(line: &str) -> Option<(u32, u32)> {
    line.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        for (line, want) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", Some((7, 2))),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some((1, 6))),
            ("virtiofsd 1.14.0", Some((1, 14))),
            ("virtiofsd backend 1.8.0", Some((1, 8))),
            ("no version", None),
            ("", None),
        ] {
            assert_eq!(number(line), want, "{line}");
        }
    }

    #[test]
    fn old_broken_and_absent_programs_are_missing() {
        for (version, want) in [
            (Ok("QEMU emulator version 7.2.22"), Verdict::Ok),
            (Ok("QEMU emulator version 6.2.0"), Verdict::Missing),
            (Ok("built from source"), Verdict::Ok),
            (Err("No such file"), Verdict::Missing),
        ] {
            let version = version.map(str::to_owned).map_err(str::to_owned);
            let finding = judge("QEMU", Path::new("/q"), version.clone(), OLDEST_QEMU, "cure");
            assert_eq!(finding.verdict, want, "{version:?}");
        }
    }

    #[tokio::test]
    async fn a_failing_program_explains_itself() {
        let failed = run(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 1"])).await;
        assert_eq!(failed, Err("two".to_owned()));
        assert!(run(&mut Command::new("/nonexistent")).await.is_err());
    }
}
