//! The commands of `osc`: what they print and how they exit. What they decide
//! lives in the crates they call.

mod check;
mod cluster;
mod commands;
mod down;
mod exec;
mod failure;
mod guest;
mod image;
mod logs;
mod node;
pub mod output;
mod payload;
pub mod progress;
mod ps;
mod run;
mod terminal;

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use clap::Parser;
use osc_runtime::dirs::Dirs;
use tracing_subscriber::filter::LevelFilter;

pub use failure::Failure;

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// Where things live, moved by `--root`.
    pub dirs: Dirs,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// Parses the command line, runs the command, prints its error.
pub fn main() -> ExitCode {
    let line = commands::Line::parse();
    log_to_stderr(line.verbose);
    // A cluster has many clients; every other command waits for one thing at a time.
    let mut builder = match &line.command {
        commands::Command::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    let context = Context { dirs: Dirs::new(line.root), verbose: line.verbose };
    match runtime.block_on(line.command.run(&context)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(verbose > 1)
        .init();
}
