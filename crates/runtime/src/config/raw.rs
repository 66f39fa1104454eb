//! The settings as they are written: right in name and type, not yet in meaning.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub hypervisor: RawHypervisors,
    pub agent: RawAgents,
    pub runtime: RawRuntime,
    pub factory: RawFactory,
}

/// `[factory]`, which the Rust runtime has below the hypervisor.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFactory {
    pub enable_template: Option<bool>,
    pub template_path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHypervisors {
    pub qemu: RawQemu,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgents {
    pub kata: RawAgent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQemu {
    pub path: String,
    pub kernel: String,
    pub initrd: String,
    pub image: String,
    pub rootfs_type: String,
    pub accelerator: String,
    pub tcg_tb_size: i64,
    pub machine_type: String,
    pub machine_accelerators: String,
    pub cpu_features: String,
    pub kernel_params: String,
    pub firmware: String,
    pub default_vcpus: f64,
    pub default_maxvcpus: i64,
    pub default_memory: i64,
    pub default_maxmemory: i64,
    pub memory_slots: i64,
    pub overhead_vcpus: f64,
    pub overhead_memory: i64,
    pub default_bridges: i64,
    pub virtio_fs_daemon: String,
    pub virtio_fs_cache: String,
    pub virtio_fs_queue_size: i64,
    pub virtio_fs_extra_args: Vec<String>,
    pub enable_hugepages: bool,
    pub enable_mem_prealloc: bool,
    pub entropy_source: String,
    pub disable_vhost_net: bool,
    pub seccompsandbox: String,
    pub guest_hook_path: String,
    pub enable_debug: bool,
    pub enable_annotations: Vec<String>,
    pub valid_hypervisor_paths: Vec<String>,
    pub valid_virtio_fs_daemon_paths: Vec<String>,
    pub valid_entropy_sources: Vec<String>,
    #[serde(default)]
    pub factory: RawFactory,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    pub enable_debug: bool,
    pub debug_console_enabled: bool,
    pub kernel_modules: Vec<String>,
    pub policy: String,
    pub container_pipe_size: i64,
    pub server_port: i64,
    pub log_port: i64,
    pub dial_timeout: Option<i64>,
    pub reconnect_timeout_ms: Option<i64>,
    pub request_timeout_ms: i64,
    pub health_check_request_timeout_ms: i64,
    pub create_container_timeout: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRuntime {
    pub enable_debug: bool,
    pub internetworking_model: String,
    pub disable_new_netns: bool,
    pub disable_guest_seccomp: bool,
    pub sandbox_cgroup_only: bool,
    pub static_sandbox_resource_mgmt: bool,
    pub sandbox_bind_mounts: Vec<String>,
    pub disable_guest_empty_dir: bool,
    pub kubelet_root_dir: String,
    pub create_container_timeout: Option<i64>,
}
