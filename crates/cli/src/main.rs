//! `osc`: the command people type.

use std::process::ExitCode;

fn main() -> ExitCode {
    osc_cli::main()
}
