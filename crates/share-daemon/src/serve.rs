//! The file system as it is asked for, served until the monitor hangs up.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use log::info;
use vhost_user_backend::{Error::HandleRequest, VhostUserDaemon};
use virtiofsd::{
    filesystem::{FileSystem, SerializableFileSystem},
    passthrough::{CachePolicy, Config, PassthroughFs, read_only::PassthroughFsRo},
    vhost_user::VhostUserFsBackendBuilder,
};
use virtiofsd_vhost::vhost_user::{Error::Disconnected, Listener};
use virtiofsd_vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::{
    confine::Confined,
    keep::{self, Keep},
    options::Options,
    pages::Pages,
};

/// How long the guest believes names and attributes, by what it may cache.
fn trust(cache: &CachePolicy) -> Duration {
    match cache {
        CachePolicy::Never => Duration::ZERO,
        CachePolicy::Auto => Duration::from_secs(1),
        CachePolicy::Metadata | CachePolicy::Always => Duration::from_secs(24 * 60 * 60),
    }
}

/// The library's view of the options, from inside the sandbox.
pub fn config(options: &Options, confined: &mut Confined, descriptors: u64) -> Config {
    let sandbox = &mut confined.sandbox;
    let trust = trust(&options.cache);
    Config {
        entry_timeout: trust,
        attr_timeout: trust,
        cache_policy: options.cache.clone(),
        writeback: options.writeback,
        root_dir: sandbox.get_root_dir(),
        mountinfo_prefix: confined.mount_prefix.clone(),
        xattr: options.has_xattr(),
        xattrmap: options.xattrmap.clone(),
        proc_sfd_rawfd: sandbox.get_proc_self_fd(),
        proc_mountinfo_rawfd: sandbox.get_mountinfo_fd(),
        announce_submounts: !options.no_announce_submounts,
        inode_file_handles: options.inode_file_handles,
        readdirplus: !options.no_readdirplus && !matches!(options.cache, CachePolicy::Never),
        allow_direct_io: options.allow_direct_io,
        killpriv_v2: options.killpriv_v2,
        posix_acl: options.posix_acl,
        security_label: options.security_label,
        clean_noatime: !options.preserve_noatime,
        allow_mmap: options.allow_mmap,
        migration_on_error: options.migration_on_error,
        migration_verify_handles: options.migration_verify_handles,
        migration_confirm_paths: options.migration_confirm_paths,
        migration_mode: options.migration_mode,
        uid_map: Some(options.translate_uid.clone()),
        gid_map: Some(options.translate_gid.clone()),
        guest_fd_limit: descriptors,
        ..Config::default()
    }
}

/// Waits for the monitor and serves its guest.
pub fn serve(options: &Options, config: Config, listener: Listener) -> anyhow::Result<()> {
    let failed = "cannot open the shared directory";
    if options.readonly {
        run(options, PassthroughFsRo::new(config).context(failed)?, listener)
    } else {
        run(options, PassthroughFs::new(config).context(failed)?, listener)
    }
}

fn run<F>(options: &Options, files: F, mut listener: Listener) -> anyhow::Result<()>
where
    F: FileSystem<Inode = u64, Handle = u64> + SerializableFileSystem + Send + Sync + 'static,
{
    let pages = matches!(options.cache, CachePolicy::Auto).then(Pages::default);
    let backend = VhostUserFsBackendBuilder::default()
        .set_thread_pool_size(options.thread_pool_size)
        .set_tag(options.tag.clone())
        .build(Keep::new(files, pages, keep::now))
        .context("cannot serve the shared directory")?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new("virtiofsd-backend".to_owned(), Arc::new(backend), memory);
    // This library's errors are not of the usual kind.
    let mut daemon = daemon.map_err(|error| anyhow::anyhow!("cannot serve: {error}"))?;

    // The runtime waits for this line.
    info!("Waiting for vhost-user socket connection...");
    daemon.start(&mut listener).map_err(|error| anyhow::anyhow!("no connection: {error}"))?;
    info!("Client connected, servicing requests");
    match daemon.wait() {
        Ok(()) | Err(HandleRequest(Disconnected)) => {
            info!("Client disconnected, shutting down");
            Ok(())
        }
        Err(error) => bail!("connection lost: {error}"),
    }
}
