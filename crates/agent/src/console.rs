//! A root shell for whoever debugs the guest.
//!
//! Off unless the host asks for it: whoever can connect owns the guest. It is
//! served on the guest's console, one shell after the other, or on a vsock port
//! with a terminal of its own for each connection.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::openpty,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    sync::Semaphore,
    task::spawn_blocking,
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

use crate::{
    boot::SEARCH_PATH,
    container::reaper::{ExitWatch, Reaper},
    sys,
};

/// Shells in order of preference; `bash` may be in images made for debugging.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
const CONSOLE: &str = "/dev/console";
/// Rest between two shells on the console, so that one that cannot start does not
/// keep the guest busy.
const REST: Duration = Duration::from_secs(1);
/// Shells at a time on the port.
const MOST: usize = 8;
const CHUNK: usize = 4096;

/// Serves shells on vsock `port`, or on the console when it is 0, until that fails.
///
/// # Errors
/// When the guest has no shell, no console or no vsock.
pub(crate) async fn serve(reaper: Reaper, port: u32) -> io::Result<()> {
    let shell = SHELLS.iter().map(Path::new).find(|path| path.exists());
    let shell = shell.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the guest image has no shell"))?;
    if port == 0 { on_console(&reaper, shell).await } else { on_port(reaper, shell, port).await }
}

async fn on_console(reaper: &Reaper, shell: &'static Path) -> io::Result<()> {
    loop {
        let terminal = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(CONSOLE)?;
        spawn(reaper, shell, terminal.into()).await?.wait().await;
        tokio::time::sleep(REST).await;
    }
}

async fn on_port(reaper: Reaper, shell: &'static Path, port: u32) -> io::Result<()> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let (stream, _) = listener.accept().await?;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let reaper = reaper.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(&reaper, shell, stream).await {
                tracing::debug!(error = %error, "debug shell ended");
            }
            drop(place);
        });
    }
}

/// Runs one shell on a terminal of its own. Dropping the terminal at the end hangs
/// up, which ends whatever runs on it.
async fn converse(reaper: &Reaper, shell: &'static Path, stream: VsockStream) -> io::Result<()> {
    let pair = openpty(None, None)?;
    let flags = OFlag::from_bits_retain(fcntl(&pair.master, FcntlArg::F_GETFL)?);
    fcntl(&pair.master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let master = sys::async_fd(pair.master)?;
    let mut exit = spawn(reaper, shell, pair.slave).await?;
    let (mut from_peer, mut to_peer) = stream.into_split();
    let input = async {
        let mut chunk = [0; CHUNK];
        loop {
            match from_peer.read(&mut chunk).await? {
                0 => return Ok::<_, io::Error>(()),
                length => write_all(&master, &chunk[..length]).await?,
            }
        }
    };
    let output = async {
        let mut chunk = [0; CHUNK];
        loop {
            // A terminal nobody holds open any more is an error to read.
            match read(&master, &mut chunk).await {
                Ok(0) | Err(_) => return Ok::<_, io::Error>(()),
                Ok(length) => to_peer.write_all(&chunk[..length]).await?,
            }
        }
    };
    tokio::select! {
        result = input => result,
        result = output => result,
        _ = exit.wait() => Ok(()),
    }
}

async fn read(master: &AsyncFd<OwnedFd>, chunk: &mut [u8]) -> io::Result<usize> {
    master.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, chunk)?)).await
}

async fn write_all(master: &AsyncFd<OwnedFd>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let written = master.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, data)?)).await?;
        data = &data[written..];
    }
    Ok(())
}

/// Starts the shell as leader of a session on `terminal`.
async fn spawn(reaper: &Reaper, shell: &'static Path, terminal: OwnedFd) -> io::Result<ExitWatch> {
    let stdio = |terminal: &OwnedFd| terminal.as_fd().try_clone_to_owned().map(File::from).map(Stdio::from);
    let mut command = Command::new(shell);
    command
        .arg("-i")
        .env_clear()
        .envs([("PATH", SEARCH_PATH), ("HOME", "/"), ("TERM", "xterm")])
        .current_dir("/")
        .stdin(stdio(&terminal)?)
        .stdout(stdio(&terminal)?)
        .stderr(stdio(&terminal)?);
    sys::on_own_terminal(&mut command);
    let window = reaper.window();
    let child = spawn_blocking(move || command.spawn()).await??;
    Ok(window.watch(child.id() as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shell_has_its_own_terminal() {
        let pair = openpty(None, None).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&pair.master, FcntlArg::F_GETFL).unwrap());
        fcntl(&pair.master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        let master = sys::async_fd(pair.master).unwrap();
        spawn(&Reaper::default(), Path::new("/bin/sh"), pair.slave).await.unwrap();
        write_all(&master, b"tty; echo $((6*7)); exit\n").await.unwrap();
        let mut seen = Vec::new();
        let mut chunk = [0; CHUNK];
        let talk = async {
            while let Ok(length @ 1..) = read(&master, &mut chunk).await {
                seen.extend_from_slice(&chunk[..length]);
            }
        };
        tokio::time::timeout(Duration::from_secs(20), talk).await.unwrap();
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains("/dev/pts/") && seen.contains("42"), "{seen}");
    }
}
