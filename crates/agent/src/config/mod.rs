//! How the agent is told what to do.
//!
//! Three sources, the later ones winning: words of the kernel command line, a
//! TOML file (which replaces the command line altogether), and the environment.
//! A guest must come up whatever the host's version of the contract says, so
//! unknown names and unusable values are noted and ignored, never fatal; only a
//! configuration file that was asked for and cannot be read is an error.

mod cmdline;
mod file;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use osc_agent_protocol::{Kind, names};
use tracing::level_filters::LevelFilter;

/// A configuration file that was named but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read agent configuration {}: check the path given by --config or agent.config_file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of the expected shape.
    #[error("agent configuration {} is not usable: correct the TOML", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

impl ConfigError {
    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::of_io(source),
            Self::Parse { .. } => Kind::Invalid,
        }
    }
}

/// Everything that can be chosen about an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Least severe level that is logged.
    pub log_level: LevelFilter,
    /// vsock port that serves the log stream; 0 keeps logs on standard output.
    pub log_port: u32,
    /// Whether anybody with access to the console may get a root shell.
    pub debug_console: bool,
    /// vsock port of that shell; 0 puts it on `/dev/console`.
    pub debug_console_port: u32,
    /// Whether the agent may be dumped and traced.
    pub dev_mode: bool,
    /// Where the ttrpc server listens.
    pub server_addr: String,
    /// How long to wait for the kernel to announce a device.
    pub hotplug_timeout: Duration,
    /// Size of the pipes that carry standard streams, in bytes; 0 keeps the kernel's.
    pub container_pipe_size: i32,
    /// Words that were recognised but carried a value nobody can use.
    pub ignored: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: LevelFilter::INFO,
            log_port: 0,
            debug_console: false,
            debug_console_port: 0,
            dev_mode: false,
            server_addr: format!("vsock://-1:{}", names::AGENT_PORT),
            hotplug_timeout: Duration::from_secs(3),
            container_pipe_size: 0,
            ignored: Vec::new(),
        }
    }
}

/// The part of the environment that configures the agent, read once in `main`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `KATA_AGENT_SERVER_ADDR`.
    pub server_addr: Option<String>,
    /// `KATA_AGENT_LOG_LEVEL`.
    pub log_level: Option<String>,
}

impl Config {
    /// Combines the sources. `explicit` is the file named on the agent's own
    /// command line, `kernel` the text of `/proc/cmdline`.
    ///
    /// # Errors
    /// [`ConfigError`] when a named configuration file cannot be used.
    pub fn load(explicit: Option<&Path>, kernel: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let from_kernel = cmdline::apply(&mut config, kernel);
        if let Some(path) = explicit.map(Path::to_path_buf).or(from_kernel) {
            config = file::read(&path)?;
        }
        if let Some(address) = &environment.server_addr {
            config.server_addr.clone_from(address);
        }
        if let Some(level) = &environment.log_level {
            config.set_log_level("KATA_AGENT_LOG_LEVEL", level);
        }
        Ok(config)
    }

    fn set_log_level(&mut self, name: &str, value: &str) {
        match level(value) {
            Some(level) => self.log_level = level,
            None => self.ignore(name, value),
        }
    }

    /// Time-outs are whole seconds above zero; anything else keeps the default.
    fn set_hotplug_timeout(&mut self, name: &str, seconds: Option<i64>, value: &str) {
        match seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0) {
            Some(seconds) => self.hotplug_timeout = Duration::from_secs(seconds),
            None => self.ignore(name, value),
        }
    }

    fn ignore(&mut self, name: &str, value: &str) {
        self.ignored.push(format!("{name}={value}"));
    }
}

/// The level a name stands for; several spellings are in use.
fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_lowercase().as_str() {
        "critical" | "fatal" | "panic" | "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win() {
        let dir = std::env::temp_dir().join(format!("agent-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("agent.toml");
        std::fs::write(&file, "server_addr = \"unix:///file\"\nlog_level = \"debug\"\n").unwrap();
        let kernel = format!("agent.log=trace agent.log_vport=1025 agent.config_file={}", file.display());

        let config = Config::load(None, &kernel, &Environment::default()).unwrap();
        assert_eq!(config.server_addr, "unix:///file");
        assert_eq!(config.log_level, LevelFilter::DEBUG);
        assert_eq!(config.log_port, 0, "a file replaces the command line");

        let environment = Environment { server_addr: Some("unix:///env".into()), log_level: Some("warn".into()) };
        let config = Config::load(Some(&file), "", &environment).unwrap();
        assert_eq!(config.server_addr, "unix:///env");
        assert_eq!(config.log_level, LevelFilter::WARN);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nonexistent/agent.toml")), "", &Environment::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("/nonexistent/agent.toml"), "{error}");
    }
}
