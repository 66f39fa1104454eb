//! Progress on standard error: a spinner on a terminal, plain lines elsewhere.

use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
    time::Duration,
};

use indicatif::ProgressBar;

/// Says what a long command is doing. Dropping it removes the spinner.
#[derive(Debug)]
pub struct Progress {
    spinner: Option<ProgressBar>,
    lines: bool,
}

impl Progress {
    /// Progress for one command.
    pub fn new() -> Self {
        let spinner = stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner, lines: true }
    }

    /// Progress for a command that is over in a few seconds: not worth lines in
    /// a log.
    pub fn on_terminal_only() -> Self {
        let mut progress = Self::new();
        progress.lines = false;
        progress
    }

    /// The command begins something new.
    pub fn step(&self, what: impl Display) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(what.to_string()),
            None if !self.lines => {}
            // A closed stderr must not end the work that is reported on.
            None => drop(writeln!(stderr(), "{what}")),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
