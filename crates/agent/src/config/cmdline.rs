//! The `agent.*` words of the kernel command line.

use std::path::PathBuf;

use super::Config;

/// Applies every word that is ours and returns the configuration file named by
/// `agent.config_file`, if any. Words of the kernel and of others are skipped.
pub(super) fn apply(config: &mut Config, text: &str) -> Option<PathBuf> {
    let mut file = None;
    for word in text.split_ascii_whitespace() {
        let Some(word) = word.strip_prefix("agent.") else { continue };
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "config_file" if !value.is_empty() => file = Some(PathBuf::from(value)),
            _ => set(config, name, value),
        }
    }
    file
}

fn set(config: &mut Config, name: &str, value: &str) {
    match name {
        "log" => config.set_log_level("agent.log", value),
        "log_vport" => number(config, name, value, |config, n| config.log_port = n),
        "debug_console" => config.debug_console = true,
        "debug_console_vport" => number(config, name, value, |config, n| config.debug_console_port = n),
        "devmode" => config.dev_mode = true,
        "server_addr" if !value.is_empty() => config.server_addr = value.to_owned(),
        "hotplug_timeout" => config.set_hotplug_timeout("agent.hotplug_timeout", value.parse().ok(), value),
        "container_pipe_size" => number(config, name, value, |config, n| config.container_pipe_size = n),
        _ => {}
    }
}

fn number<N: std::str::FromStr>(config: &mut Config, name: &str, value: &str, store: impl FnOnce(&mut Config, N)) {
    match value.parse() {
        Ok(n) => store(config, n),
        Err(_) => config.ignore(&format!("agent.{name}"), value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::level_filters::LevelFilter;

    use super::*;

    fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn words_select_settings() {
        let table: &[(&str, Config)] = &[
            ("", Config::default()),
            ("quiet panic=1 nokaslr agent.something_new=1 agent.", Config::default()),
            ("agent.log=debug", with(|c| c.log_level = LevelFilter::DEBUG)),
            ("agent.log=critical", with(|c| c.log_level = LevelFilter::ERROR)),
            ("agent.log=loud", with(|c| c.ignored = vec!["agent.log=loud".into()])),
            ("agent.debug_console", with(|c| c.debug_console = true)),
            (
                "agent.debug_console agent.debug_console_vport=1026",
                with(|c| (c.debug_console, c.debug_console_port) = (true, 1026)),
            ),
            ("agent.devmode", with(|c| c.dev_mode = true)),
            ("agent.log_vport=1025", with(|c| c.log_port = 1025)),
            ("agent.log_vport=-1", with(|c| c.ignored = vec!["agent.log_vport=-1".into()])),
            ("agent.server_addr=unix:///a", with(|c| c.server_addr = "unix:///a".into())),
            ("agent.server_addr=", Config::default()),
            ("agent.hotplug_timeout=7", with(|c| c.hotplug_timeout = Duration::from_secs(7))),
            ("agent.hotplug_timeout=0", with(|c| c.ignored = vec!["agent.hotplug_timeout=0".into()])),
            ("agent.hotplug_timeout=-4", with(|c| c.ignored = vec!["agent.hotplug_timeout=-4".into()])),
            ("agent.container_pipe_size=65536", with(|c| c.container_pipe_size = 65536)),
        ];
        for (text, want) in table {
            let mut seen = Config::default();
            assert_eq!(apply(&mut seen, text), None, "{text}");
            assert_eq!(seen, *want, "{text}");
        }
    }

    #[test]
    fn a_file_can_be_named() {
        let mut config = Config::default();
        assert_eq!(apply(&mut config, "agent.config_file=/etc/a.toml"), Some(PathBuf::from("/etc/a.toml")));
    }
}
