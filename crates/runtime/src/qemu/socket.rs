//! Unix sockets whose paths may be longer than `sun_path` holds.

use std::{
    fs::File,
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

/// Listens at `path`, taking the place of a stale socket there.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_dir, short) = shorten(path)?;
    UnixListener::bind(short)
}

/// Connects to `path`.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_dir, short) = shorten(path)?;
    UnixStream::connect(short)
}

/// The same file by way of its directory's descriptor, which must stay open.
fn shorten(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok((dir, short))
}
