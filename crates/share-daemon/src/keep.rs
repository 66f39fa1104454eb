//! A file system that lets the guest keep pages, around one that does the work.

use std::{
    ffi::CStr,
    fs::File,
    io,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use virtiofsd::{
    filesystem::{
        Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
        SerializableFileSystem, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
    },
    fuse::{Attr, SetattrIn},
};

use crate::pages::{Pages, Stamp};

/// Passes everything on to `inner`, and amends its answers to opens.
#[derive(Debug)]
pub struct Keep<F> {
    inner: F,
    /// Nothing under cache policies that say themselves what the guest keeps.
    pages: Option<Pages>,
    /// The time since 1970.
    clock: fn() -> Duration,
}

/// The time since 1970, by the clock file systems use.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Keep<F> {
    /// Without `pages` the answers of `inner` stay as they are.
    pub fn new(inner: F, pages: Option<Pages>, clock: fn() -> Duration) -> Self {
        Self { inner, pages, clock }
    }

    /// `more` is what to answer if the pages may stay. A file that cannot be looked at
    /// is one whose pages go.
    fn amend(&self, context: Context, inode: u64, opened: Opened, more: OpenOptions) -> Opened {
        let (Some(pages), (Some(handle), options)) = (&self.pages, &opened) else { return opened };
        // In this order: a change in between then counts as too recent.
        let now = (self.clock)();
        let stamp = self.inner.getattr(context, inode, Some(*handle)).ok().and_then(|(attr, _)| Stamp::of(&attr));
        let keep = pages.keep(inode, *handle, stamp, now);
        (opened.0, if keep { *options | more } else { *options })
    }

    fn used(&self, inode: u64, handle: u64) {
        if let Some(pages) = &self.pages {
            pages.used(inode, handle);
        }
    }

    fn forgotten(&self, inode: u64) {
        if let Some(pages) = &self.pages {
            pages.forget(inode);
        }
    }

    fn start_over(&self) {
        if let Some(pages) = &self.pages {
            pages.forget_all();
        }
    }
}

/// What an open answers: a handle, and what the guest may do.
type Opened = (Option<u64>, OpenOptions);

macro_rules! pass_on {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> $answer {
            self.inner.$name($($argument),*)
        })*
    };
}

#[allow(clippy::too_many_arguments, reason = "the trait is the library's")]
impl<F: FileSystem<Inode = u64, Handle = u64>> FileSystem for Keep<F> {
    type Inode = u64;
    type Handle = u64;
    type DirIter = F::DirIter;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.start_over();
        self.inner.init(capable)
    }

    fn destroy(&self) {
        self.start_over();
        self.inner.destroy();
    }

    fn forget(&self, ctx: Context, inode: u64, count: u64) {
        self.forgotten(inode);
        self.inner.forget(ctx, inode, count);
    }

    fn batch_forget(&self, ctx: Context, requests: Vec<(u64, u64)>) {
        for (inode, _) in &requests {
            self.forgotten(*inode);
        }
        self.inner.batch_forget(ctx, requests);
    }

    fn open(&self, ctx: Context, inode: u64, kill_priv: bool, flags: u32) -> io::Result<Opened> {
        let opened = self.inner.open(ctx, inode, kill_priv, flags)?;
        Ok(self.amend(ctx, inode, opened, OpenOptions::KEEP_CACHE))
    }

    fn release(
        &self,
        ctx: Context,
        inode: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.used(inode, handle);
        self.inner.release(ctx, inode, flags, handle, flush, flock_release, lock_owner)
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        w: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.used(inode, handle);
        self.inner.read(ctx, inode, handle, w, size, offset, lock_owner, flags)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        ctx: Context,
        inode: u64,
        handle: u64,
        r: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        self.inner.write(ctx, inode, handle, r, size, offset, lock_owner, delayed_write, kill_priv, flags)
    }

    pass_on! {
        fn lookup(ctx: Context, parent: u64, name: &CStr) -> io::Result<Entry>;
        fn getattr(ctx: Context, inode: u64, handle: Option<u64>) -> io::Result<(Attr, Duration)>;
        fn setattr(ctx: Context, inode: u64, attr: SetattrIn, handle: Option<u64>, valid: SetattrValid)
            -> io::Result<(Attr, Duration)>;
        fn readlink(ctx: Context, inode: u64) -> io::Result<Vec<u8>>;
        fn symlink(ctx: Context, target: &CStr, parent: u64, name: &CStr, extensions: Extensions)
            -> io::Result<Entry>;
        fn mknod(ctx: Context, parent: u64, name: &CStr, mode: u32, rdev: u32, umask: u32, extensions: Extensions)
            -> io::Result<Entry>;
        fn mkdir(ctx: Context, parent: u64, name: &CStr, mode: u32, umask: u32, extensions: Extensions)
            -> io::Result<Entry>;
        fn unlink(ctx: Context, parent: u64, name: &CStr) -> io::Result<()>;
        fn rmdir(ctx: Context, parent: u64, name: &CStr) -> io::Result<()>;
        fn rename(ctx: Context, from: u64, name: &CStr, to: u64, new_name: &CStr, flags: u32) -> io::Result<()>;
        fn link(ctx: Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry>;
        fn create(
            ctx: Context, parent: u64, name: &CStr, mode: u32, kill_priv: bool, flags: u32, umask: u32,
            extensions: Extensions
        ) -> io::Result<(Entry, Option<u64>, OpenOptions)>;
        fn flush(ctx: Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()>;
        fn fsync(ctx: Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()>;
        fn fallocate(ctx: Context, inode: u64, handle: u64, mode: u32, offset: u64, length: u64) -> io::Result<()>;
        fn statfs(ctx: Context, inode: u64) -> io::Result<libc::statvfs64>;
        fn setxattr(ctx: Context, inode: u64, name: &CStr, value: &[u8], flags: u32, extra: SetxattrFlags)
            -> io::Result<()>;
        fn getxattr(ctx: Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply>;
        fn listxattr(ctx: Context, inode: u64, size: u32) -> io::Result<ListxattrReply>;
        fn removexattr(ctx: Context, inode: u64, name: &CStr) -> io::Result<()>;
        fn opendir(ctx: Context, inode: u64, flags: u32) -> io::Result<Opened>;
        fn readdir(ctx: Context, inode: u64, handle: u64, size: u32, offset: u64) -> io::Result<Self::DirIter>;
        fn fsyncdir(ctx: Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()>;
        fn releasedir(ctx: Context, inode: u64, flags: u32, handle: u64) -> io::Result<()>;
        fn access(ctx: Context, inode: u64, mask: u32) -> io::Result<()>;
        fn lseek(ctx: Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64>;
        fn copyfilerange(
            ctx: Context, inode_in: u64, handle_in: u64, offset_in: u64, inode_out: u64, handle_out: u64,
            offset_out: u64, len: u64, flags: u64
        ) -> io::Result<usize>;
        fn syncfs(ctx: Context, inode: u64) -> io::Result<()>;
        fn getlk() -> io::Result<()>;
        fn setlk() -> io::Result<()>;
        fn setlkw() -> io::Result<()>;
        fn ioctl() -> io::Result<()>;
        fn bmap() -> io::Result<()>;
        fn poll() -> io::Result<()>;
        fn notify_reply() -> io::Result<()>;
        fn tmpfile() -> io::Result<(Entry, Option<u64>, OpenOptions)>;
    }
}

impl<F: SerializableFileSystem> SerializableFileSystem for Keep<F> {
    pass_on! {
        fn prepare_serialization(cancel: Arc<AtomicBool>) -> ();
        fn serialize(state_pipe: File) -> io::Result<()>;
        // Into a process that has seen no open yet, so there is nothing to start over.
        fn deserialize_and_apply(state_pipe: File) -> io::Result<()>;
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, fs, os::unix::fs::MetadataExt, path::Path};

    use virtiofsd::passthrough::{Config, PassthroughFs};

    use super::*;

    fn context() -> Context {
        Context { uid: 0.into(), gid: 0.into(), pid: 1 }
    }

    /// Files a test makes are too young by any other clock.
    fn an_hour_ahead() -> Duration {
        now() + Duration::from_secs(3600)
    }

    fn serving(dir: &Path, pages: Option<Pages>) -> Keep<PassthroughFs> {
        let config = Config { root_dir: dir.to_str().unwrap().to_owned(), ..Config::default() };
        let served = Keep::new(PassthroughFs::new(config).unwrap(), pages, an_hour_ahead);
        served.init(FsOptions::empty()).unwrap();
        served
    }

    fn find(served: &Keep<PassthroughFs>, name: &str) -> u64 {
        served.lookup(context(), virtiofsd::fuse::ROOT_ID, &CString::new(name).unwrap()).unwrap().inode
    }

    /// Opens and closes, and tells whether the pages could stay.
    fn kept(served: &Keep<PassthroughFs>, inode: u64, flags: i32) -> bool {
        let (handle, options) = served.open(context(), inode, false, flags as u32).unwrap();
        served.release(context(), inode, 0, handle.unwrap(), false, false, None).unwrap();
        options.contains(OpenOptions::KEEP_CACHE)
    }

    /// Writes until the file system's clock has moved on.
    fn rewrite(file: &Path, text: &str) {
        let changed = || fs::metadata(file).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
        let before = changed();
        while changed() == before {
            fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn pages_of_a_real_file_stay_until_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "one").unwrap();
        let served = serving(dir.path(), Some(Pages::default()));
        let inode = find(&served, "file");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("nothing", &|| {}),
            ("other text of the same size", &|| rewrite(&file, "two")),
            ("longer text", &|| rewrite(&file, "three")),
            ("truncated in the guest", &|| assert!(!kept(&served, inode, libc::O_WRONLY | libc::O_TRUNC))),
        ];
        for (what, change) in changes {
            change();
            assert!(!kept(&served, inode, libc::O_RDONLY), "{what}");
            if fs::metadata(&file).unwrap().blocks() > 0 {
                assert!(kept(&served, inode, libc::O_RDONLY), "{what}, then left alone");
                assert!(kept(&served, inode, libc::O_RDONLY), "{what}, then left alone");
            }
        }
    }

    #[test]
    fn a_forgotten_file_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "one").unwrap();
        let served = serving(dir.path(), Some(Pages::default()));
        let forget: [&dyn Fn(u64); 3] = [
            &|inode| served.forget(context(), inode, 1),
            &|inode| served.batch_forget(context(), vec![(inode, 1)]),
            &|_| assert!(served.init(FsOptions::empty()).is_ok()),
        ];
        for forget in forget {
            let inode = find(&served, "file");
            assert!(!kept(&served, inode, libc::O_RDONLY));
            assert!(kept(&served, inode, libc::O_RDONLY));
            forget(inode);
        }
    }

    #[test]
    fn kernel_files_and_other_policies_are_left_alone() {
        for (dir, name, pages) in [("/sys/kernel", "fscaps", Some(Pages::default())), ("/etc", "passwd", None)] {
            let served = serving(Path::new(dir), pages);
            let inode = find(&served, name);
            for _ in 0..3 {
                assert!(!kept(&served, inode, libc::O_RDONLY), "{dir}/{name}");
            }
        }
    }
}
