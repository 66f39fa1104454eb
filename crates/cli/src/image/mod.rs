//! `osc image`: container images without a container engine.
//!
//! `build` turns a folder into an image archive of one layer. There is no
//! Dockerfile, no base image and no code run: what is in the folder is what is
//! in the image. Equal folders give equal archives.

mod archive;
mod error;
mod layer;
mod reference;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use osc_agent_protocol::Kind;
use osc_node::engine::Parts;

pub use error::ImageError;

use crate::{
    Context, Failure,
    output::{self, bytes},
    payload,
};

/// `osc image …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Assemble an image archive from a folder
    Build(Box<Build>),
    /// Pack what nodes need to run sandboxes into a folder
    Payload(Payload),
}

/// Arguments of `osc image payload`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder gets shim, virtiofsd, guest image, default configuration, this program and
a manifest with their digests. It is what machine-config-daemon installs on its node:
  osc image payload /usr/share/sandboxed-containers/payload
  machine-config-daemon --node NAME --payload /usr/share/sandboxed-containers/payload")]
pub struct Payload {
    /// Folder to make; one that exists is replaced
    dir: PathBuf,

    /// Folder of the guest image [default: the installed one]
    #[arg(long, value_name = "DIR")]
    guest: Option<PathBuf>,
}

/// Arguments of `osc image build`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder becomes the root of the image: its files keep their modes and belong
to root. --cmd and --entrypoint take a JSON list of words, or one line that
/bin/sh in the image runs.

Examples:
  osc image build tree -t localhost/hello:latest --cmd '[\"/bin/hello\",\"world\"]'
  osc image build tree -t localhost/web -o web.tar --user 1001 --expose 8080 \\
      --env LANG=C --workdir /srv --cmd 'exec httpd -f -p 8080'

The archive is an OCI image layout. To use it with a container engine:
  ctr --namespace k8s.io images import web.tar")]
pub struct Build {
    /// Folder that becomes the root of the image
    dir: PathBuf,

    /// Name of the image; without a registry it belongs to docker.io, as everywhere
    #[arg(short = 't', long, value_name = "NAME")]
    tag: String,

    /// Archive to write [default: last part of the name, with .tar]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Arguments of the entrypoint, or the command when there is none
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,

    /// Program that is always run
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,

    /// Environment variable (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// User, and group, to run as: UID, UID:GID or names from the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Directory to run in
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,

    /// Port the image serves, as PORT or PORT/PROTOCOL (repeatable)
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,

    /// Label of the image (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Print name, digest and size as JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    /// Runs the command; its exit code.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Build(args) => build(*args).await,
            Self::Payload(args) => payload(args, context).await,
        }
    }
}

async fn payload(args: Payload, context: &Context) -> Result<u8, Failure> {
    let mut parts = Parts::installed(&context.dirs);
    if let Some(guest) = &args.guest {
        parts.kernel = guest.join("vmlinux");
        parts.initrd = guest.join("initrd.img");
    }
    let tool = std::env::current_exe()?;
    let dir = args.dir.clone();
    let packed = tokio::task::spawn_blocking(move || payload::pack(&parts, &dir, Some(&tool))).await;
    let manifest = packed
        .map_err(|error| Failure::new(Kind::Bug, error))?
        .map_err(|error| Failure::new(Kind::Unavailable, error))?;
    output::line(format_args!("payload {} in {}", manifest.version, args.dir.display()))?;
    Ok(0)
}

async fn build(args: Build) -> Result<u8, Failure> {
    let name = reference::normalize(&args.tag)?;
    let config = args.config()?;
    let out = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.tar", reference::short(&name))));
    let json = args.json;
    let built = tokio::task::spawn_blocking(move || archive::write(&args.dir, &name, &config, &out));
    let built = built.await.map_err(|error| Failure::new(Kind::Bug, error))??;
    if json {
        output::json(&built)?;
    } else {
        let archive = built.archive.display();
        output::line(format_args!("{} {} in {archive} ({})", built.name, built.digest, bytes(built.bytes)))?;
    }
    Ok(0)
}

impl Build {
    fn config(&self) -> Result<archive::Config, ImageError> {
        let mut env = self.env.iter().map(|entry| pair("--env", entry)).collect::<Result<Vec<_>, _>>()?;
        if !env.iter().any(|(name, _)| name == "PATH") {
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            env.insert(0, ("PATH".to_owned(), path.to_owned()));
        }
        if let Some(dir) = self.workdir.as_ref().filter(|dir| !dir.starts_with('/')) {
            return Err(ImageError::Option { option: "--workdir", value: dir.clone(), wanted: "an absolute path" });
        }
        Ok(archive::Config {
            entrypoint: self.entrypoint.as_deref().map(|text| command("--entrypoint", text)).transpose()?,
            cmd: self.cmd.as_deref().map(|text| command("--cmd", text)).transpose()?,
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            ports: self.expose.iter().map(|text| port(text)).collect::<Result<_, _>>()?,
            labels: self.label.iter().map(|entry| pair("--label", entry)).collect::<Result<_, _>>()?,
        })
    }
}

/// A JSON list is taken as it is, anything else is a line for the shell: the
/// two forms people know from Dockerfiles.
fn command(option: &'static str, text: &str) -> Result<Vec<String>, ImageError> {
    if !text.trim_start().starts_with('[') {
        return Ok(["/bin/sh", "-c", text].map(str::to_owned).to_vec());
    }
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) if !words.is_empty() => Ok(words),
        _ => {
            let wanted = "a JSON list of words such as [\"/bin/true\"], or a line for the shell";
            Err(ImageError::Option { option, value: text.to_owned(), wanted })
        }
    }
}

fn pair(option: &'static str, text: &str) -> Result<(String, String), ImageError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ImageError::Option { option, value: text.to_owned(), wanted: "NAME=VALUE" }),
    }
}

fn port(text: &str) -> Result<String, ImageError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match number.parse::<u16>() {
        Ok(number) if number > 0 && matches!(protocol, "tcp" | "udp" | "sctp") => Ok(format!("{number}/{protocol}")),
        _ => {
            let wanted = "PORT or PORT/tcp, PORT/udp, PORT/sctp";
            Err(ImageError::Option { option: "--expose", value: text.to_owned(), wanted })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_two_forms() {
        for (text, want) in [
            (r#"["/bin/a", "b c"]"#, Some(vec!["/bin/a", "b c"])),
            ("echo $HOME", Some(vec!["/bin/sh", "-c", "echo $HOME"])),
            ("[broken", None),
            ("[]", None),
            ("[1]", None),
        ] {
            assert_eq!(
                command("--cmd", text).ok(),
                want.map(|words| words.into_iter().map(str::to_owned).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn ports_and_pairs_are_checked() {
        for (text, want) in
            [("80", Some("80/tcp")), ("53/udp", Some("53/udp")), ("0", None), ("x", None), ("80/icmp", None)]
        {
            assert_eq!(port(text).ok().as_deref(), want, "{text}");
        }
        assert!(pair("--env", "A=b=c").is_ok_and(|pair| pair == ("A".to_owned(), "b=c".to_owned())));
        assert!(pair("--env", "=b").is_err());
        assert!(pair("--env", "A").is_err());
    }
}
