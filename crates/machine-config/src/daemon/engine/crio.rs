//! CRI-O: a drop-in adds to what is there.

use std::path::PathBuf;

use super::Runtime;

/// Where the package of the runtime puts its drop-in, too.
const FILE: &str = "/etc/crio/crio.conf.d/50-kata";

pub(super) fn offer(runtime: &Runtime) -> (PathBuf, String) {
    let quote = |path: &PathBuf| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
    let text = format!(
        "[crio.runtime.runtimes.kata]\n\
         runtime_path = {}\n\
         runtime_type = \"vm\"\n\
         runtime_root = \"/run/vc\"\n\
         runtime_config_path = {}\n\
         privileged_without_host_devices = true\n",
        quote(&runtime.shim),
        quote(&runtime.config),
    );
    (FILE.into(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_is_the_one_cri_o_users_know() {
        let (path, text) = offer(&Runtime { shim: "/p/a\"b".into(), config: "/p/c".into(), log_level: None });
        assert_eq!(path, PathBuf::from(FILE));
        let parsed: toml::Table = text.parse().unwrap();
        let kata = &parsed["crio"]["runtime"]["runtimes"]["kata"];
        assert_eq!(kata["runtime_type"].as_str(), Some("vm"));
        assert_eq!(kata["runtime_path"].as_str(), Some("/p/a\"b"));
        assert_eq!(kata["privileged_without_host_devices"].as_bool(), Some(true));
    }
}
