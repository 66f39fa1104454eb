//! An initramfs as a root that `pivot_root` accepts.

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statfs::{FsType, TMPFS_MAGIC, statfs},
    unistd::{chdir, chroot},
};

use super::BootError;

/// An empty directory every image has, to hold the copy for a moment.
const STAGE: &str = "/run";

/// `RAMFS_MAGIC` of the kernel's `magic.h`, which the C library lacks.
const RAMFS: FsType = FsType(0x8584_58f6);

/// The kernel's first mount has no parent, and `pivot_root` needs the old root
/// to have one. Binding the root onto itself, moving that mount over `/` and
/// changing into it gives containers a root with a parent. An image booted from
/// a disk has one already.
pub(super) fn make_pivotable() -> Result<(), BootError> {
    rebind().map_err(BootError::Root)
}

fn rebind() -> Result<(), Errno> {
    if !is_initramfs(statfs("/")?.filesystem_type()) {
        return Ok(());
    }
    mount(Some("/"), STAGE, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    chdir(STAGE)?;
    mount(Some(STAGE), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")
}

fn is_initramfs(kind: FsType) -> bool {
    kind == RAMFS || kind == TMPFS_MAGIC
}
