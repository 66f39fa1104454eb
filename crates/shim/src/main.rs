//! containerd-shim-kata-v2: runs a pod in a virtual machine of its own.

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use osc_runtime::dirs::{Dirs, ROOT_VARIABLE};
use osc_shim::{
    args::{self, Action, Args},
    bootstrap::{self, CONFIG_VARIABLE, CORE_VARIABLE, SOCKET_VARIABLE, Surroundings},
    events,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-kata-v2: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args = args::parse(env::args_os().skip(1))?;
    let mut out = io::stdout();
    match args.action {
        Action::Version => writeln!(out, "{}", bootstrap::version())?,
        Action::Info => out.write_all(&bootstrap::runtime_info())?,
        Action::Start => write!(out, "{}", bootstrap::start(&args, &surroundings(&args)?)?)?,
        Action::Delete => out.write_all(&bootstrap::delete(&args, &surroundings(&args)?)?)?,
        Action::Template => bootstrap::make_template(&args.order)?,
        Action::Serve => bootstrap::serve(&args, surroundings(&args)?)?,
    }
    Ok(())
}

fn surroundings(args: &Args) -> Result<Surroundings> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => env::current_dir().context("the working directory, which is the bundle, is gone")?,
    };
    let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(Surroundings {
        bundle,
        dirs: path(ROOT_VARIABLE).map_or_else(Dirs::default, Dirs::new),
        config_file: path(CONFIG_VARIABLE),
        events: env::var(events::ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty()),
        socket: env::var(SOCKET_VARIABLE).ok().and_then(|number| number.parse().ok()),
        own_cores: env::var_os(CORE_VARIABLE).is_some(),
    })
}
