//! Unix sockets whose path is longer than `sun_path`.
//!
//! Below a test root or a deep prefix, paths outgrow the 107 bytes a socket
//! address holds. The directory is opened and the socket named through the
//! descriptor, `/proc/self/fd/<n>/<name>`, which is always short.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::libc::{O_DIRECTORY, O_PATH};

/// A short name of a socket, good while this value lives.
struct Short {
    _directory: File,
    path: PathBuf,
}

fn short(path: &Path) -> io::Result<Short> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "a socket path needs a directory and a name");
    let name = path.file_name().ok_or_else(invalid)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = OpenOptions::new().read(true).custom_flags(O_PATH | O_DIRECTORY).open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(Short { _directory: directory, path })
}

/// Listens on `path`, replacing a socket an earlier owner left behind.
///
/// # Errors
/// Whatever the kernel says; a directory that does not exist among others.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let short = short(path)?;
    match std::fs::remove_file(&short.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(&short.path)
}

/// Connects to the socket at `path`. Blocks while the backlog of the other side is full.
///
/// # Errors
/// Whatever the kernel says.
pub fn connect_blocking(path: &Path) -> io::Result<UnixStream> {
    let short = short(path)?;
    UnixStream::connect(&short.path)
}

/// Connects to the socket at `path`. Cancel-safe.
///
/// # Errors
/// Whatever the kernel says.
pub async fn connect(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let short = short(path)?;
    tokio::net::UnixStream::connect(&short.path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_of_any_length_works() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let first = listen(&path).unwrap();
        drop(first);
        let listener = listen(&path).unwrap();
        let _streams = (connect(&path).await.unwrap(), connect_blocking(&path).unwrap());
        listener.accept().unwrap();
        assert_eq!(connect(&deep.join("absent")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
