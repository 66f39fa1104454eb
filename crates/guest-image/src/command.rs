//! Runs the few outside tools a build needs: bounded in time and in output.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::error::BuildError;

/// How much of a failed tool's complaint is kept.
const STDERR_KEPT: u64 = 4 << 10;

/// Bounds on one run.
pub struct Limits {
    /// Time until it is killed.
    pub time: Duration,
    /// Most bytes of standard output.
    pub output: u64,
}

/// Runs `command` with `input` on its standard input and returns its standard
/// output. A run that exceeds a limit is killed and reaped.
pub fn output(command: &mut Command, input: &[u8], limits: &Limits) -> Result<Vec<u8>, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Messages are shown to people, but `Depends:` and the like are parsed.
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| BuildError::ToolMissing { program: program.clone(), source })?;
    let result = talk(&mut child, input, limits);
    if result.is_err() {
        // Already gone is as good as killed.
        let _ = child.kill();
    }
    let status = child.wait();
    let (stdout, stderr) = match result {
        Ok(streams) => streams,
        Err(Stuck::Silent) => return Err(BuildError::ToolSilent { program, limit: limits.time }),
        Err(Stuck::TooLoud) => return Err(BuildError::ToolTooLoud { program, limit: limits.output }),
    };
    match status {
        Ok(status) if status.success() => Ok(stdout),
        Ok(status) => Err(BuildError::ToolFailed {
            program,
            status: status.to_string(),
            stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
        }),
        Err(source) => Err(BuildError::ToolMissing { program, source }),
    }
}

enum Stuck {
    Silent,
    TooLoud,
}

enum Stream {
    Stdout(io::Result<Vec<u8>>),
    Stderr(Vec<u8>),
}

fn talk(child: &mut Child, input: &[u8], limits: &Limits) -> Result<(Vec<u8>, Vec<u8>), Stuck> {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = child.stdout.take().expect("stdout is piped").take(limits.output + 1);
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let (send, receive) = mpsc::sync_channel(2);
    let send_errors = send.clone();
    let input = input.to_vec();
    // Detached on purpose: each ends when the child does, and the caller kills
    // it on every early way out.
    thread::spawn(move || {
        // A tool that stops reading early says why on its own.
        let _ = stdin.write_all(&input);
    });
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.read_to_end(&mut bytes).map(|_| bytes);
        let _ = send.send(Stream::Stdout(read));
    });
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.by_ref().take(STDERR_KEPT).read_to_end(&mut bytes);
        let _ = io::copy(&mut stderr, &mut io::sink());
        let _ = send_errors.send(Stream::Stderr(bytes));
    });

    let until = Instant::now() + limits.time;
    let (mut out, mut err) = (None, None);
    while out.is_none() || err.is_none() {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Stream::Stdout(Ok(bytes))) if bytes.len() as u64 > limits.output => return Err(Stuck::TooLoud),
            Ok(Stream::Stdout(bytes)) => out = Some(bytes.unwrap_or_default()),
            Ok(Stream::Stderr(bytes)) => err = Some(bytes),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(Stuck::Silent),
        }
    }
    Ok((out.unwrap_or_default(), err.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), output: 1000 };

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(output(&mut sh("tr a-z A-Z"), b"abc", &LIMITS).unwrap(), b"ABC");
    }

    #[test]
    fn every_limit_and_failure_has_its_error() {
        let slow = Limits { time: Duration::from_millis(100), ..LIMITS };
        assert!(matches!(output(&mut sh("exec tail -f /dev/null"), b"", &slow), Err(BuildError::ToolSilent { .. })));
        assert!(matches!(output(&mut sh("exec cat /dev/zero"), b"", &LIMITS), Err(BuildError::ToolTooLoud { .. })));
        let failed = output(&mut sh("echo why >&2; exit 3"), b"", &LIMITS);
        assert!(matches!(failed, Err(BuildError::ToolFailed { stderr, .. }) if stderr == "why"));
        let missing = output(&mut Command::new("/nonexistent/tool"), b"", &LIMITS);
        assert!(matches!(missing, Err(BuildError::ToolMissing { .. })));
    }
}
