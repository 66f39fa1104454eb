//! `virtiofsd`: serves a directory of the host to one guest, as the stock daemon of
//! that name does and on the same library, but lets the guest keep the pages of a
//! file from one open to the next while the file stays as it is.
//!
//! ```text
//!  words ─► options ─► listen ─► confine ─► serve ─► guest
//!                                             │
//!                            keep: on each open, ask pages: unchanged?
//! ```
//!
//! The stock daemon has a guest drop a file's pages at every open (`--cache=auto`), so
//! that each start of a program reads the program again, or lets it believe names and
//! attributes for a day (`--cache=always`), so that changes on the host are never seen.
//!
//! The guest is the attacker and may own this process. What confines it (namespaces,
//! system call filter, capabilities) is the library's, used as the stock daemon does.

mod compat;
mod confine;
mod keep;
mod listen;
mod options;
mod pages;
mod serve;
mod sys;

use std::{fs, process::ExitCode};

use anyhow::{Context, ensure};
use log::{error, warn};

use crate::options::Options;

fn main() -> ExitCode {
    let options = Options::of(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if options.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    start_log(&options);
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What management programs ask for before they start a daemon (vhost-user back-end
/// conventions of QEMU, `vhost-user.json`).
const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "migrate-precopy",
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}"#;

/// Messages go to standard error at the level asked for; `RUST_LOG` overrides it.
fn start_log(options: &Options) {
    let level = options.level();
    let to_stderr = || {
        let level = env_logger::Env::default().default_filter_or(level.to_string());
        env_logger::Builder::from_env(level).init();
    };
    if !options.syslog {
        return to_stderr();
    }
    if let Err(error) = syslog::init(syslog::Facility::LOG_USER, level, None) {
        to_stderr();
        warn!("no system log, messages go to standard error: {error}");
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    sys::end_on_signals().context("cannot handle signals")?;
    options.check()?;
    for word in options.outdated() {
        warn!("{word}");
    }
    let shared = options.shared_dir();
    let found = fs::metadata(shared).with_context(|| format!("cannot share {shared}"))?;
    ensure!(found.is_dir() || found.is_file(), "cannot share {shared}: it is neither a directory nor a file");

    // The pid file stays locked while this process runs.
    let (listener, _pid_file) = listen::listen(&options)?;
    let descriptors = confine::descriptors(options.rlimit_nofile, options.thread_pool_size)?;
    let mut confined = confine::enter(&options, listener)?;
    let config = serve::config(&options, &mut confined, descriptors);
    // Before the first thread: it would go unfiltered.
    confine::filter(options.seccomp, options.syslog)?;
    confine::drop_capabilities(options.inode_file_handles, options.modcaps.as_deref())?;
    serve::serve(&options, config, confined.listener)
}
