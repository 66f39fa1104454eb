//! `osc guest`: the guest image.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use osc_agent_protocol::Kind;
use osc_guest_image::{DEFAULT_KERNEL_PACKAGE, Manifest, Recipe};

use crate::{
    Context, Failure,
    output::{self, bytes},
    progress::Progress,
};

/// `osc guest …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the kernel and initramfs every sandbox boots
    Build(Build),
    /// Show what the installed guest image is made of, and that it is intact
    Info(Info),
}

/// Arguments of `osc guest build`.
#[derive(Debug, Args)]
#[command(after_help = "\
The kernel and busybox are taken from this machine's Debian mirror by apt, and
the agent becomes the init of the guest. Equal inputs give equal bytes.

Examples:
  osc guest build
  osc guest build --out target/guest --cache target/cache
  osc guest build --kernel-package linux-image-cloud-amd64 --module wireguard")]
pub struct Build {
    /// Directory to install the image in [default: where sandboxes look for it]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Static agent binary [default: kata-agent beside this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,

    /// Kernel package, or a metapackage that depends on one
    #[arg(long, value_name = "NAME", default_value = DEFAULT_KERNEL_PACKAGE)]
    kernel_package: String,

    /// Kernel module to add for modprobe (repeatable); every one costs guest memory
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,

    /// Where to keep downloaded packages [default: cache below the state directory]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `osc guest info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Image directory [default: where sandboxes look for it]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Build(args) => build(args, context).await,
            Self::Info(args) => info(args, context),
        }
    }
}

async fn build(args: Build, context: &Context) -> Result<u8, Failure> {
    let out = args.out.unwrap_or_else(|| context.dirs.guest());
    let recipe = Recipe {
        agent: args.agent.map_or_else(agent_beside_us, Ok)?,
        kernel_package: args.kernel_package,
        extra_modules: args.module,
        cache: args.cache.unwrap_or_else(|| context.dirs.state().join("cache")),
    };
    let dir = out.clone();
    let progress = Progress::new();
    let built = tokio::task::spawn_blocking(move || osc_guest_image::build(&recipe, &dir, &|step| progress.step(step)));
    let manifest = built.await.map_err(|error| Failure::new(Kind::Bug, error))??;
    show(&manifest, &out, args.json)
}

fn agent_beside_us() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name("kata-agent"))
}

fn info(args: Info, context: &Context) -> Result<u8, Failure> {
    let dir = args.dir.unwrap_or_else(|| context.dirs.guest());
    let manifest = Manifest::read(&dir)?;
    manifest.verify(&dir)?;
    show(&manifest, &dir, args.json)
}

fn show(manifest: &Manifest, dir: &Path, json: bool) -> Result<u8, Failure> {
    if json {
        output::json(manifest)?;
        return Ok(0);
    }
    let agent = manifest.agent.version.as_deref().unwrap_or("unknown version");
    for (name, value) in [
        ("guest image", dir.display().to_string()),
        (
            "kernel",
            format!("{} ({}), {}", manifest.kernel.release, manifest.kernel.package, bytes(manifest.vmlinux.bytes)),
        ),
        ("agent", format!("{agent}, {}, sha256 {}", bytes(manifest.agent.file.bytes), manifest.agent.file.sha256)),
        ("busybox", manifest.busybox.to_string()),
        ("initramfs", format!("{}, sha256 {}", bytes(manifest.initrd.bytes), manifest.initrd.sha256)),
        ("at boot", manifest.boot_modules.join(" ")),
        ("on demand", manifest.on_demand_modules.join(" ")),
    ] {
        output::line(format_args!("{name:12} {value}"))?;
    }
    Ok(0)
}
