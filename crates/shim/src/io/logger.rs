//! Logger programs (`binary://`): both streams on descriptors 3 and 4, and a pipe on
//! descriptor 5 that the logger closes when it is ready.

use std::{io, os::fd::OwnedFd, path::Path, process::Stdio, time::Duration};

use nix::fcntl::OFlag;
use osc_runtime::deadline::Deadline;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};

use super::{IoError, copy::Sink};
use crate::sys;

/// How long a logger may take to get ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Starts a logger and waits until it is ready.
pub(super) async fn start(
    uri: &str,
    program: &Path,
    arguments: &[String],
    id: &str,
    namespace: &str,
) -> Result<(Child, Sink, Sink), IoError> {
    let failed = |source| IoError::Open { uri: uri.to_owned(), source };
    let (out_reader, out_writer) = pipe_pair().map_err(failed)?;
    let (err_reader, err_writer) = pipe_pair().map_err(failed)?;
    let (ready_reader, ready_writer) = pipe_pair().map_err(failed)?;

    let mut command = std::process::Command::new(program);
    command.args(arguments).env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::pass_from_three(&mut command, vec![out_reader, err_reader, ready_writer]);
    let mut command = Command::from(command);
    let child = command.spawn().map_err(failed)?;
    // The command owns our copies of the logger's ends.
    drop(command);

    let mut ready = pipe::Receiver::from_owned_fd(ready_reader).map_err(failed)?;
    let by = Deadline::after(READY_LIMIT);
    match by.run(ready.read(&mut [0])).await {
        Ok(outcome) => outcome.map(drop).map_err(failed)?,
        Err(elapsed) => return Err(IoError::Logger { uri: uri.to_owned(), waited: elapsed.0 }),
    }
    let sink = |end: OwnedFd| pipe::Sender::from_owned_fd(end).map(Sink::Pipe).map_err(failed);
    Ok((child, sink(out_writer)?, sink(err_writer)?))
}

fn pipe_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_logger_gets_both_streams_and_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("logger");
        let text = "#!/bin/sh\nexec 5>&-\ncd \"$1\"\necho $CONTAINER_ID $CONTAINER_NAMESPACE > names\ncat <&4 > err &\ncat <&3 > out\nwait\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let arguments = [dir.path().display().to_string()];
        let (mut child, mut out, mut err) = start("u", &script, &arguments, "c1", "ns").await.unwrap();
        out.write(b"hello").await.unwrap();
        err.write(b"oops").await.unwrap();
        drop((out, err));
        assert!(child.wait().await.unwrap().success());
        let seen = ["names", "out", "err"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
        assert_eq!(seen, ["c1 ns\n", "hello", "oops"]);
    }

    #[tokio::test]
    async fn a_missing_logger_is_an_error() {
        let error = start("binary:///no/such", Path::new("/no/such"), &[], "c", "n").await.unwrap_err();
        assert_eq!(error.kind(), osc_agent_protocol::Kind::NotFound);
    }
}
