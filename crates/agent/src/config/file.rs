//! The TOML configuration file. Unknown keys are ignored: the file may have been
//! written for an agent with more features.

use std::path::Path;

use serde::Deserialize;

use super::{Config, ConfigError};

/// Keys as they stand in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawConfig {
    #[serde(alias = "log")]
    log_level: Option<String>,
    log_vport: Option<u32>,
    debug_console: Option<bool>,
    debug_console_vport: Option<u32>,
    #[serde(alias = "devmode")]
    dev_mode: Option<bool>,
    server_addr: Option<String>,
    hotplug_timeout: Option<i64>,
    container_pipe_size: Option<i32>,
}

/// Reads `path` on top of the defaults.
pub(super) fn read(path: &Path) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let raw = toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_path_buf(), source: Box::new(source) })?;
    Ok(check(raw))
}

fn check(raw: RawConfig) -> Config {
    let mut config = Config::default();
    if let Some(level) = &raw.log_level {
        config.set_log_level("log_level", level);
    }
    if let Some(seconds) = raw.hotplug_timeout {
        config.set_hotplug_timeout("hotplug_timeout", Some(seconds), &seconds.to_string());
    }
    let defaults = config;
    Config {
        log_port: raw.log_vport.unwrap_or(defaults.log_port),
        debug_console: raw.debug_console.unwrap_or(defaults.debug_console),
        debug_console_port: raw.debug_console_vport.unwrap_or(defaults.debug_console_port),
        dev_mode: raw.dev_mode.unwrap_or(defaults.dev_mode),
        server_addr: raw.server_addr.unwrap_or(defaults.server_addr),
        container_pipe_size: raw.container_pipe_size.unwrap_or(defaults.container_pipe_size),
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_keys_are_read_and_others_ignored() {
        let text = "dev_mode = true\nhotplug_timeout = 9\nlog_vport = 1025\npolicy_file = \"/p\"\n[endpoints]\na = 1\n";
        let config = check(toml::from_str(text).unwrap());
        assert!(config.dev_mode);
        assert_eq!(config.hotplug_timeout, Duration::from_secs(9));
        assert_eq!(config.log_port, 1025);
    }

    #[test]
    fn a_time_out_of_zero_keeps_the_default() {
        let config = check(toml::from_str("hotplug_timeout = 0").unwrap());
        assert_eq!(config.hotplug_timeout, Duration::from_secs(3));
        assert_eq!(config.ignored, ["hotplug_timeout=0"]);
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_place() {
        let error = toml::from_str::<RawConfig>("log_vport = \"x\"").unwrap_err();
        assert!(error.to_string().contains("log_vport"), "{error}");
    }
}
