//! `kata-agent`: the service inside a guest.
//!
//! As process 1 it prepares the machine, serves, and turns the machine off when
//! it leaves. Started by anything else it only serves. `kata-agent init` is how it
//! starts itself to build a container.

use std::{path::PathBuf, process::ExitCode};

use osc_agent::{
    boot,
    config::{Config, Environment},
    container,
    log::Log,
    run,
};
use osc_agent_protocol::kind::chain;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    config: Option<PathBuf>,
    version: bool,
    unknown: Option<String>,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--version" | "-V" => arguments.version = true,
                "--config" | "-c" => arguments.config = words.next().map(PathBuf::from),
                _ => match word.strip_prefix("--config=") {
                    Some(path) => arguments.config = Some(path.into()),
                    None => arguments.unknown = arguments.unknown.or(Some(word)),
                },
            }
        }
        arguments
    }
}

fn main() -> ExitCode {
    // Before anything else: the builder of a container is process 1 as well, of the
    // container's pid namespace.
    if std::env::args().nth(1).as_deref() == Some("init") {
        return container::init::main();
    }
    let first = std::process::id() == 1;
    let arguments = Arguments::parse(std::env::args().skip(1));
    if arguments.version {
        println!("kata-agent {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // The kernel hands words it does not know to process 1: none is an order.
    if let Some(word) = arguments.unknown.as_ref().filter(|_| !first) {
        eprintln!("kata-agent: {word:?} is not understood; usage: kata-agent [--config FILE] [--version]");
        return ExitCode::from(2);
    }
    let failures = if first { boot::prepare() } else { Vec::new() };
    let code = serve(&arguments, &failures, first);
    if first && let Err(errno) = boot::power_off() {
        eprintln!("kata-agent: cannot turn the guest off: {errno}");
    }
    code
}

fn serve(arguments: &Arguments, failures: &[boot::BootError], init: bool) -> ExitCode {
    let environment = Environment {
        server_addr: std::env::var("KATA_AGENT_SERVER_ADDR").ok(),
        log_level: std::env::var("KATA_AGENT_LOG_LEVEL").ok(),
    };
    // Without a command line there are the defaults.
    let kernel = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let loaded = Config::load(arguments.config.as_deref(), &kernel, &environment);
    let level = loaded.as_ref().map_or(Config::default().log_level, |config| config.log_level);
    let log = match Log::install(level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("kata-agent: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    for failure in failures {
        tracing::error!(error = chain(failure), error.kind = ?failure.kind(), "start-up step failed");
    }
    let code = match loaded {
        Ok(config) => serve_with(config, &log, init),
        Err(error) => fail(&error),
    };
    log.flush();
    code
}

fn serve_with(config: Config, log: &Log, init: bool) -> ExitCode {
    for word in &config.ignored {
        tracing::warn!(setting = word, "setting ignored");
    }
    if !config.dev_mode
        && let Err(errno) = nix::sys::prctl::set_dumpable(false)
    {
        tracing::warn!(error = %errno, "the agent can be dumped");
    }
    // One thread: a guest usually has one processor, and everything slow is done
    // on threads that end when it is.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(run(config, log, init)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tracing::error!(error = chain(error), "agent ends");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_out() {
        let parse = |text: &str| Arguments::parse(text.split_whitespace().map(String::from));
        let config = Some(PathBuf::from("/a.toml"));
        for (text, want) in [
            ("", Arguments::default()),
            ("--version", Arguments { version: true, ..Default::default() }),
            ("-c /a.toml", Arguments { config: config.clone(), ..Default::default() }),
            ("--config=/a.toml", Arguments { config: config.clone(), ..Default::default() }),
            ("nokaslr more", Arguments { unknown: Some("nokaslr".into()), ..Default::default() }),
            ("-c", Arguments::default()),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
