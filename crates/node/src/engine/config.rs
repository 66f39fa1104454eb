//! containerd's configuration file.

use std::path::{Path, PathBuf};

use super::paths::Paths;

/// Facts of the machine that the configuration depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Directory of the CNI plugins.
    pub cni_bin: PathBuf,
    /// `overlayfs`, or `native` where overlay mounts do not work.
    pub snapshotter: &'static str,
    /// The kata shim.
    pub shim: PathBuf,
    /// Whether we may make processes less likely to be killed than ourselves
    /// (`CAP_SYS_RESOURCE`), as the sandbox container normally is.
    pub lowers_oom_score: bool,
}

/// Image of the sandbox container; made by [`super::pause`], never pulled.
pub const PAUSE_IMAGE: &str = "localhost/osc-pause:1";

/// Renders the file. Plugins that would touch places outside the root are off.
pub fn render(paths: &Paths, machine: &Machine) -> String {
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    let quote = |path: &Path| toml_string(&path.to_string_lossy());
    format!(
        r#"# Written by osc at every start of this engine; changes are lost.
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = {socket}

[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  systemd_cgroup = false
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {restrict_oom_score}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [{cri}.cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}
  [{cri}.containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
  [{cri}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [{cri}.containerd.runtimes.runc.options]
      Root = {runc_root}
  [{cri}.containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
    runtime_path = {shim}
    pod_annotations = ["io.katacontainers.*"]
    container_annotations = ["io.katacontainers.*"]
    # A privileged container is privileged in its VM: no host device follows it.
    privileged_without_host_devices = true
    [{cri}.containerd.runtimes.kata.options]
      ConfigPath = {kata_config}
"#,
        root = quote(&paths.content()),
        state = quote(&paths.live()),
        socket = quote(&paths.socket()),
        cni_bin = quote(&machine.cni_bin),
        cni_conf = quote(&paths.cni_conf()),
        restrict_oom_score = !machine.lowers_oom_score,
        snapshotter = machine.snapshotter,
        runc_root = quote(&paths.live().join("runc")),
        shim = quote(&machine.shim),
        kata_config = quote(&paths.kata_config()),
    )
}

/// A TOML basic string; JSON's escapes are a subset of TOML's.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use osc_runtime::dirs::Dirs;

    use super::*;

    #[test]
    fn nothing_in_it_points_outside_the_root() {
        let machine = Machine {
            cni_bin: "/usr/lib/cni".into(),
            snapshotter: "overlayfs",
            shim: "/x/containerd-shim".into(),
            lowers_oom_score: true,
        };
        let text = render(&Paths::new(Dirs::new("/tmp/root")), &machine);
        let outside: Vec<_> = text
            .lines()
            .filter(|line| line.contains("= \"/") && !line.contains("\"/tmp/root/"))
            .map(|line| line.trim().split(' ').next().unwrap_or_default())
            .collect();
        assert_eq!(outside, ["bin_dir", "runtime_path"]);
    }

    #[test]
    fn odd_characters_are_quoted() {
        assert_eq!(toml_string("/a \"b\""), r#""/a \"b\"""#);
    }
}
