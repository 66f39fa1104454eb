//! The words of the command line: those of the stock daemon.

use std::{ffi::OsString, os::fd::RawFd};

use anyhow::ensure;
use clap::{CommandFactory, Parser, error::ErrorKind};
use log::LevelFilter;
use virtiofsd::{
    idmap::{GidMap, UidMap},
    passthrough::{
        CachePolicy, InodeFileHandlesMode, MigrationMode, MigrationOnError, NegotiationMode, xattrmap::XattrMap,
    },
    sandbox::SandboxMode,
    seccomp::SeccompAction,
    soft_idmap::cmdline::IdMap,
    vhost_user::MAX_TAG_LEN,
};

use crate::compat;

/// The version of the stock daemon whose words these are, which is the library's: who
/// asks for a version wants to know what the daemon understands.
const VERSION: &str = "1.14.0";

/// Serves a directory to the guest of one virtual machine (virtio-fs over vhost-user).
///
/// A word given twice counts the second time.
#[derive(Clone, Debug, Parser)]
#[command(name = "virtiofsd", version = VERSION, args_override_self = true, arg_required_else_help = true)]
pub struct Options {
    /// Directory or file to serve
    #[arg(long, required_unless_present_any = ["compat", "print_capabilities"])]
    pub shared_dir: Option<String>,
    /// Name of the file system, for monitors that ask the daemon
    #[arg(long, value_parser = tag)]
    pub tag: Option<String>,
    /// Socket to make for the monitor
    #[arg(long, alias = "socket", required_unless_present_any = ["fd", "print_capabilities"])]
    pub socket_path: Option<String>,
    /// Group that may use the socket
    #[arg(long, conflicts_with = "fd")]
    pub socket_group: Option<String>,
    /// Descriptor of a socket that listens already, instead of a path
    #[arg(long, conflicts_with = "socket_path")]
    pub fd: Option<RawFd>,
    /// Most threads that serve requests; 0: the one that receives them
    #[arg(long, default_value = "0")]
    pub thread_pool_size: usize,

    /// What the guest caches: nothing, names and attributes, also data that is checked at
    /// each open, everything for a day [never, metadata, auto, always]
    #[arg(long, default_value = "auto")]
    pub cache: CachePolicy,
    /// Lets the guest write later than its programs do
    #[arg(long)]
    pub writeback: bool,
    /// Lets programs of the guest bypass the host's cache
    #[arg(long)]
    pub allow_direct_io: bool,
    /// Lets programs of the guest map files although data is not cached
    #[arg(long)]
    pub allow_mmap: bool,
    /// Lists directories without attributes
    #[arg(long)]
    pub no_readdirplus: bool,
    /// Refuses all changes
    #[arg(long)]
    pub readonly: bool,
    /// Keeps O_NOATIME of the guest's opens
    #[arg(long)]
    pub preserve_noatime: bool,
    /// Shows the guest where other file systems are mounted [default]
    #[arg(long = "announce-submounts", overrides_with = "no_announce_submounts")]
    _announce_submounts: bool,
    /// Makes all mounts one file system for the guest
    #[arg(long)]
    pub no_announce_submounts: bool,
    /// Whether inodes are kept as handles, not open files [never, prefer, mandatory]
    #[arg(long, require_equals = true, default_value = "prefer", value_parser = handles)]
    pub inode_file_handles: InodeFileHandlesMode,

    /// Extended attributes
    #[arg(long)]
    pub xattr: bool,
    /// Names of extended attributes on the host, such as `:map::user.virtiofs.:`
    #[arg(long, value_parser = |rules: &str| XattrMap::try_from(rules))]
    pub xattrmap: Option<XattrMap>,
    /// Access control lists, and extended attributes with them [never, auto, always]
    #[arg(long, require_equals = true, default_value = "never", default_missing_value = "always", num_args = 0..=1)]
    pub posix_acl: NegotiationMode,
    /// Security labels of new files [never, auto, always]
    #[arg(long, require_equals = true, default_value = "never", default_missing_value = "always", num_args = 0..=1)]
    pub security_label: NegotiationMode,
    /// The daemon drops set-id bits when a file is written
    #[arg(long)]
    pub killpriv_v2: bool,
    /// The guest does [default]
    #[arg(long = "no-killpriv-v2", overrides_with = "killpriv_v2")]
    _no_killpriv_v2: bool,

    /// How the daemon is confined [namespace, chroot, none]
    #[arg(long, default_value = "namespace")]
    pub sandbox: SandboxMode,
    /// What happens at a system call it has no use for [none, kill, log, trap]
    #[arg(long, default_value = "kill", value_parser = seccomp)]
    pub seccomp: SeccompAction,
    /// Capabilities to keep or drop besides the usual, such as `+sys_admin:-chown`
    #[arg(long, allow_hyphen_values = true)]
    pub modcaps: Option<String>,
    /// Limit of open files; 0 leaves it alone [default: 1000000, or what the host allows]
    #[arg(long)]
    pub rlimit_nofile: Option<u64>,
    /// User ids of the daemon's namespace, `:inside:outside:count:`; repeatable
    #[arg(long)]
    pub uid_map: Vec<UidMap>,
    /// Group ids of the daemon's namespace, `:inside:outside:count:`; repeatable
    #[arg(long)]
    pub gid_map: Vec<GidMap>,
    /// User ids the daemon translates, `kind:source:target:count`, where kind is guest,
    /// host, squash-guest, squash-host, forbid-guest or map; repeatable
    #[arg(long)]
    pub translate_uid: Vec<IdMap>,
    /// Group ids the daemon translates, likewise
    #[arg(long)]
    pub translate_gid: Vec<IdMap>,

    /// How files are named to the daemon a guest migrates to [find-paths, file-handles]
    #[arg(long, default_value = "find-paths")]
    pub migration_mode: MigrationMode,
    /// What a file that cannot migrate ends [abort, guest-error]
    #[arg(long, default_value = "abort")]
    pub migration_on_error: MigrationOnError,
    /// Has the other daemon check that a path leads to the same file
    #[arg(long)]
    pub migration_verify_handles: bool,
    /// Checks paths once more just before the guest moves
    #[arg(long)]
    pub migration_confirm_paths: bool,

    /// Least important messages to write [error, warn, info, debug, trace, off]
    #[arg(long, default_value = "info")]
    pub log_level: LevelFilter,
    /// Messages go to the system log
    #[arg(long)]
    pub syslog: bool,
    /// Prints what this daemon can do, for management programs
    #[arg(long)]
    pub print_capabilities: bool,
    /// Options in the words of the C daemon [outdated]
    #[arg(short = 'o', value_name = "OPTION,...")]
    compat: Vec<String>,
    /// As --log-level=debug [outdated]
    #[arg(short = 'd')]
    debug: bool,
    /// No effect [outdated]
    #[arg(short = 'f')]
    foreground: bool,
}

impl Options {
    /// Reads a command line; unknown words are refused.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut options = Self::try_parse_from(words)?;
        for list in options.compat.clone() {
            for option in list.split(',') {
                compat::apply(&mut options, option).map_err(|unknown| {
                    Self::command().error(ErrorKind::InvalidValue, format!("unknown option -o {unknown}"))
                })?;
            }
        }
        if options.shared_dir.is_none() && !options.print_capabilities {
            let missing = "nothing to share: --shared-dir or -o source= is needed";
            return Err(Self::command().error(ErrorKind::MissingRequiredArgument, missing));
        }
        Ok(options)
    }

    /// What to serve.
    pub fn shared_dir(&self) -> &str {
        self.shared_dir.as_deref().unwrap_or_default()
    }

    /// What is logged.
    pub fn level(&self) -> LevelFilter {
        if self.debug { LevelFilter::Debug } else { self.log_level }
    }

    /// Whether files have extended attributes.
    pub fn has_xattr(&self) -> bool {
        let implied = [self.posix_acl, self.security_label].iter().any(|mode| *mode != NegotiationMode::Never);
        self.xattr || self.xattrmap.is_some() || implied
    }

    /// Refuses words that contradict each other.
    pub fn check(&self) -> anyhow::Result<()> {
        let translates = !self.translate_uid.is_empty() || !self.translate_gid.is_empty();
        ensure!(
            self.posix_acl == NegotiationMode::Never || !translates,
            "--translate-uid and --translate-gid would break access control lists: leave out --posix-acl"
        );
        ensure!(
            self.migration_mode == MigrationMode::FindPaths
                || !(self.migration_confirm_paths || self.migration_verify_handles),
            "--migration-mode=file-handles leaves no paths to check: leave out --migration-confirm-paths and \
             --migration-verify-handles"
        );
        Ok(())
    }

    /// Advice on words that have successors.
    pub fn outdated(&self) -> Vec<&'static str> {
        let advice = [
            (self.foreground, "-f has no effect, leave it out"),
            (self.debug, "-d is outdated, say --log-level=debug"),
            (!self.compat.is_empty(), "-o is outdated, say --cache=auto instead of -o cache=auto"),
        ];
        advice.into_iter().filter_map(|(given, advice)| given.then_some(advice)).collect()
    }
}

fn tag(word: &str) -> Result<String, String> {
    match word.len() {
        1..=MAX_TAG_LEN => Ok(word.to_owned()),
        _ => Err(format!("a tag has 1 to {MAX_TAG_LEN} bytes")),
    }
}

fn handles(word: &str) -> Result<InodeFileHandlesMode, &'static str> {
    match word {
        "never" => Ok(InodeFileHandlesMode::Never),
        // The second one is outdated.
        "prefer" | "fallback" => Ok(InodeFileHandlesMode::Prefer),
        "mandatory" => Ok(InodeFileHandlesMode::Mandatory),
        _ => Err("one of never, prefer, mandatory"),
    }
}

fn seccomp(word: &str) -> Result<SeccompAction, &'static str> {
    match word {
        "none" => Ok(SeccompAction::Allow),
        "kill" => Ok(SeccompAction::Kill),
        "log" => Ok(SeccompAction::Log),
        "trap" => Ok(SeccompAction::Trap),
        _ => Err("one of none, kill, log, trap"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        let words = ["virtiofsd"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        Options::of(words).map_err(|error| error.to_string())
    }

    /// Besides the words every line needs.
    fn with(line: &str) -> Options {
        read(&format!("--fd=0 --shared-dir=/dir {line}")).unwrap()
    }

    #[test]
    fn what_runtimes_pass_is_understood() {
        let options = read(
            "--fd=0 --shared-dir=/dir --cache=never --log-level=info --inode-file-handles=never --rlimit-nofile=1024 \
             --thread-pool-size=1 --announce-submounts --cache=auto",
        )
        .unwrap();
        assert_eq!((options.fd, options.shared_dir(), options.thread_pool_size), (Some(0), "/dir", 1));
        assert!(matches!(options.cache, CachePolicy::Auto), "the last word counts");
        assert_eq!(options.inode_file_handles, InodeFileHandlesMode::Never);
        assert_eq!((options.rlimit_nofile, options.level()), (Some(1024), LevelFilter::Info));
        assert!(!options.no_announce_submounts);
        assert!(options.outdated().is_empty());

        let options =
            read("--syslog --socket-path /s --socket-group kvm -o source=/dir -o cache=none,announce_submounts -d -f")
                .unwrap();
        assert_eq!((options.socket_path.as_deref(), options.shared_dir()), (Some("/s"), "/dir"));
        assert!(matches!(options.cache, CachePolicy::Never));
        assert_eq!((options.level(), options.outdated().len()), (LevelFilter::Debug, 3));
        assert!(read("--print-capabilities").unwrap().print_capabilities);
    }

    #[test]
    fn words_mean_what_they_say() {
        let modes = |line: &str| (with(line).posix_acl, with(line).has_xattr());
        assert_eq!(modes(""), (NegotiationMode::Never, false));
        assert_eq!(modes("--xattr"), (NegotiationMode::Never, true));
        assert_eq!(modes("--xattrmap :map::user.:"), (NegotiationMode::Never, true));
        assert_eq!(modes("--posix-acl"), (NegotiationMode::Always, true));
        assert_eq!(modes("--posix-acl=auto"), (NegotiationMode::Auto, true));
        assert!(with("--security-label").has_xattr());
        assert!(with("--no-announce-submounts").no_announce_submounts);
        assert!(!with("--no-announce-submounts --announce-submounts").no_announce_submounts);
        assert!(with("--killpriv-v2").killpriv_v2);
        assert!(!with("--killpriv-v2 --no-killpriv-v2").killpriv_v2);
        assert_eq!(with("--inode-file-handles=fallback").inode_file_handles, InodeFileHandlesMode::Prefer);
        assert!(matches!(with("").seccomp, SeccompAction::Kill));
        assert!(matches!(with("--seccomp none").seccomp, SeccompAction::Allow));
        assert_eq!(with("--sandbox chroot").sandbox, SandboxMode::Chroot);
        assert_eq!(with("--modcaps -chown").modcaps.as_deref(), Some("-chown"));
        assert_eq!(with("--uid-map :0:1000:1: --uid-map :1:2000:5:").uid_map.len(), 2);
        assert_eq!(with("--translate-uid map:0:1000:1").translate_uid.len(), 1);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--fd=0 --shared-dir=/d --no-such-word", "--no-such-word"),
            ("--fd=0 --shared-dir=/d --cache=some", "cache"),
            ("--fd=0 --shared-dir=/d --seccomp=some", "none, kill, log, trap"),
            ("--fd=0 --shared-dir=/d --inode-file-handles=some", "never, prefer, mandatory"),
            ("--fd=0 --shared-dir=/d --tag=0123456789012345678901234567890123456", "36"),
            ("--fd=0 --shared-dir=/d -o some", "-o some"),
            ("--fd=0 --shared-dir=/d -o cache=some", "-o cache=some"),
            ("--fd=0 --shared-dir=/d --socket-path=/s", "--socket-path"),
            ("--fd=0 -o xattr", "--shared-dir"),
            ("--fd=0", "--shared-dir"),
            ("--shared-dir=/d", "--socket-path"),
            ("", "Usage"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
        for line in ["--posix-acl --translate-gid map:0:1:1", "--migration-mode=file-handles --migration-confirm-paths"]
        {
            assert!(with(line).check().is_err(), "{line}");
        }
        assert!(with("").check().is_ok());
    }

    #[test]
    fn the_version_is_the_librarys() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"virtiofsd\"\nversion = \"{VERSION}\"")));
    }
}
