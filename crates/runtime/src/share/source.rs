//! What is to be shared, held open so that it cannot be exchanged between look and mount.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// What kind of file a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A directory.
    Directory,
    /// A disk.
    Block,
    /// A character device.
    Character,
    /// A regular file, socket or pipe: anything mounted onto a file.
    File,
}

/// An opened source.
#[derive(Debug)]
pub(super) struct Source {
    fd: OwnedFd,
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owning group.
    pub gid: u32,
}

impl Source {
    /// Opens `path`, following symbolic links as mount(2) would.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
        let meta = file.metadata()?;
        let kind = match meta.file_type() {
            t if t.is_dir() => FileKind::Directory,
            t if t.is_block_device() => FileKind::Block,
            t if t.is_char_device() => FileKind::Character,
            _ => FileKind::File,
        };
        Ok(Self { fd: file.into(), kind, mode: meta.mode() & 0o7777, gid: meta.gid() })
    }

    /// A path of exactly this file, good while `self` lives.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string())
    }

    /// Where the file really is, as far as the kernel can tell.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(self.path())
    }
}
