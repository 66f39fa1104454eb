//! The process that makes a template of virtual machines, for the sandboxes to come.

use anyhow::{Context, Result};
use osc_runtime::template::{Maker, Order, make};
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Args, sys};

/// How this program is started to make a template. It carries the address of the
/// engine as all shims do: who ends them finds it, too.
pub(super) fn maker(args: &Args) -> Maker {
    let words = ["-namespace", &args.namespace, "-address", &args.address, "template"];
    Maker { program: "/proc/self/exe".into(), arguments: words.map(Into::into).into() }
}

/// Makes the template `order` asks for.
///
/// # Errors
/// When none was made; the store remembers why.
pub fn make_template(order: &str) -> Result<()> {
    let order = Order::parse(order)?;
    sys::be_nice().context("cannot become nice")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        tokio::select! {
            made = make(order) => Ok(made?),
            // Dropped, it ends its machine; the next one removes the files.
            _ = end.recv() => Ok(()),
        }
    })
}
