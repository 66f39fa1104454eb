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
    /// The kata shim; none, and drop-ins may offer the runtime.
    pub shim: Option<PathBuf>,
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
{imports}root = {root}
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
{kata}"#,
        root = quote(&paths.content()),
        state = quote(&paths.live()),
        socket = quote(&paths.socket()),
        cni_bin = quote(&machine.cni_bin),
        cni_conf = quote(&paths.cni_conf()),
        restrict_oom_score = !machine.lowers_oom_score,
        snapshotter = machine.snapshotter,
        runc_root = quote(&paths.live().join("runc")),
        imports = match machine.shim {
            Some(_) => String::new(),
            None => format!("imports = [{}]\n", quote(&paths.drop_ins().join("*.toml"))),
        },
        kata =
            machine.shim.as_ref().map(|shim| kata(cri, &quote(shim), &quote(&paths.kata_config()))).unwrap_or_default(),
    )
}

/// The table of the runtime; paths are quoted.
fn kata(cri: &str, shim: &str, configuration: &str) -> String {
    format!(
        r#"  [{cri}.containerd.runtimes.kata]
    runtime_type = "io.containerd.kata.v2"
    runtime_path = {shim}
    pod_annotations = ["io.katacontainers.*"]
    container_annotations = ["io.katacontainers.*"]
    # A privileged container is privileged in its VM: no host device follows it.
    privileged_without_host_devices = true
    [{cri}.containerd.runtimes.kata.options]
      ConfigPath = {configuration}
"#
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
            shim: Some("/x/containerd-shim".into()),
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
    fn without_a_shim_drop_ins_may_offer_the_runtime() {
        let machine =
            Machine { cni_bin: "/usr/lib/cni".into(), snapshotter: "overlayfs", shim: None, lowers_oom_score: true };
        let text = render(&Paths::new(Dirs::new("/tmp/root")), &machine);
        assert!(text.contains("\nimports = [\"/tmp/root/etc/containerd/conf.d/*.toml\"]\nroot = "), "{text}");
        assert!(!text.contains("kata"), "{text}");
    }

    #[test]
    fn odd_characters_are_quoted() {
        assert_eq!(toml_string("/a \"b\""), r#""/a \"b\"""#);
    }
}
