//! `-o`: the words of the daemon that came with QEMU, which Kata's configurations
//! still carry.

use log::LevelFilter;
use virtiofsd::{
    passthrough::{CachePolicy, NegotiationMode, xattrmap::XattrMap},
    sandbox::SandboxMode,
};

use crate::options::Options;

/// Applies one option, or returns it if it is not known.
pub fn apply<'w>(options: &mut Options, option: &'w str) -> Result<(), &'w str> {
    let known = match option.split_once('=') {
        Some((name, value)) => set(options, name, value),
        None => switch(options, option),
    };
    known.ok_or(option)
}

fn set(options: &mut Options, name: &str, value: &str) -> Option<()> {
    match name {
        "source" => options.shared_dir = Some(value.to_owned()),
        "modcaps" => options.modcaps = Some(value.to_owned()),
        "xattrmap" => options.xattrmap = Some(XattrMap::try_from(value).ok()?),
        "cache" => {
            options.cache = match value {
                "none" => CachePolicy::Never,
                "metadata" => CachePolicy::Metadata,
                "auto" => CachePolicy::Auto,
                "always" => CachePolicy::Always,
                _ => return None,
            }
        }
        "loglevel" => {
            options.log_level = match value {
                "err" => LevelFilter::Error,
                "warn" => LevelFilter::Warn,
                "info" => LevelFilter::Info,
                "debug" => LevelFilter::Debug,
                _ => return None,
            }
        }
        "sandbox" => {
            options.sandbox = match value {
                "namespace" => SandboxMode::Namespace,
                "chroot" => SandboxMode::Chroot,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

fn switch(options: &mut Options, option: &str) -> Option<()> {
    let (name, on) = match option.strip_prefix("no_") {
        Some(name) => (name, false),
        None => (option, true),
    };
    let negotiated = if on { NegotiationMode::Always } else { NegotiationMode::Never };
    match name {
        "xattr" => options.xattr = on,
        "readdirplus" => options.no_readdirplus = !on,
        "writeback" => options.writeback = on,
        "allow_direct_io" => options.allow_direct_io = on,
        "announce_submounts" => options.no_announce_submounts = !on,
        "killpriv_v2" => options.killpriv_v2 = on,
        "posix_acl" => options.posix_acl = negotiated,
        "security_label" => options.security_label = negotiated,
        // Locks are the guest's own, always.
        "posix_lock" | "flock" if !on => {}
        _ => return None,
    }
    Some(())
}
