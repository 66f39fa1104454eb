//! From settings as written to settings that mean something.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use regex_lite::Regex;

use super::{
    error::Problem,
    keys::{AGENT, FACTORY, QEMU, RUNTIME},
    load::Host,
    raw::{Raw, RawAgent, RawFactory, RawQemu, RawRuntime},
    types::{
        Accelerator, Agent, BindMount, CacheMode, GuestRoot, Hypervisor, KernelModule, LEAST_MEMORY, MachineType, Mib,
        NetworkModel, Runtime, Templates, VirtioFs,
    },
};

/// The ACPI tables of the emulated machine have no room for more.
const MOST_SLOTS: i64 = 256;
/// Time for the agent of a starting sandbox to answer.
const DIAL: Duration = Duration::from_secs(45);
/// Time for a container to be created.
const CREATE: Duration = Duration::from_secs(60);

/// Turns `raw` into checked parts. The result may be used only when nothing was added to
/// `problems`: wrong values are replaced by usable ones so that checking goes on.
pub(super) fn check(raw: Raw, host: &Host, problems: &mut Vec<Problem>) -> (Hypervisor, Agent, Runtime) {
    let create = raw.runtime.create_container_timeout;
    let mut qemu = raw.hypervisor.qemu;
    let factory = RawFactory {
        enable_template: qemu.factory.enable_template.or(raw.factory.enable_template),
        template_path: qemu.factory.template_path.take().or(raw.factory.template_path),
    };
    let templates = templates(factory, host, &mut Check { section: FACTORY, problems });
    let hypervisor = hypervisor(qemu, templates, host, &mut Check { section: QEMU, problems });
    let agent = agent(raw.agent.kata, create, &mut Check { section: AGENT, problems });
    let runtime = runtime(raw.runtime, &mut Check { section: RUNTIME, problems });
    (hypervisor, agent, runtime)
}

/// Collects what is wrong in one section.
struct Check<'p> {
    section: &'static str,
    problems: &'p mut Vec<Problem>,
}

impl Check<'_> {
    fn wrong(&mut self, name: &str, value: impl fmt::Display, allowed: impl Into<String>) {
        let path = format!("{}.{name}", self.section);
        self.problems.push(Problem { path, value: value.to_string(), allowed: allowed.into() });
    }

    fn number(&mut self, name: &str, value: i64, least: i64, most: i64) -> u32 {
        if !(least..=most).contains(&value) {
            self.wrong(name, value, format!("must be {least} to {most}"));
        }
        u32::try_from(value.clamp(least, most)).unwrap_or(u32::MAX)
    }

    fn word<T: Copy>(&mut self, name: &str, value: &str, all: &[(T, &str)]) -> T {
        if let Some((found, _)) = all.iter().find(|(_, word)| *word == value) {
            return *found;
        }
        let words: Vec<_> = all.iter().map(|(_, word)| format!("{word:?}")).collect();
        self.wrong(name, format!("{value:?}"), format!("must be {}", words.join(" or ")));
        all[0].0
    }

    fn path(&mut self, name: &str, value: String) -> PathBuf {
        if !plain_path(&value) {
            self.wrong(name, format!("{value:?}"), "must be an absolute path without control characters");
        }
        value.into()
    }

    /// Text that goes onto a command line as one word or several, never as a line.
    fn line(&mut self, name: &str, value: String) -> String {
        if value.chars().any(char::is_control) {
            self.wrong(name, format!("{value:?}"), "must not contain control characters");
        }
        value
    }

    /// One QEMU option value: blanks are never right in it.
    fn options(&mut self, name: &str, value: String) -> String {
        if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.wrong(name, format!("{value:?}"), "must be options separated by commas, without blanks");
        }
        value
    }

    fn millis(&mut self, name: &str, value: i64) -> Duration {
        Duration::from_millis(self.number(name, value, 1, i64::from(u32::MAX)).into())
    }

    fn seconds(&mut self, name: &str, value: i64) -> Duration {
        Duration::from_secs(self.number(name, value, 1, 24 * 3600).into())
    }
}

fn plain_path(path: &str) -> bool {
    path.starts_with('/') && !path.chars().any(char::is_control)
}

fn templates(raw: RawFactory, host: &Host, c: &mut Check<'_>) -> Templates {
    let dir = match raw.template_path {
        Some(path) if !path.is_empty() => c.path("template_path", path),
        _ => host.guest.with_file_name("templates"),
    };
    Templates { enabled: raw.enable_template.unwrap_or(true), dir }
}

fn hypervisor(raw: RawQemu, templates: Templates, host: &Host, c: &mut Check<'_>) -> Hypervisor {
    let vcpus = vcpus(raw.default_vcpus, host, c);
    let memory =
        Mib(c.number("default_memory", raw.default_memory, LEAST_MEMORY.0.cast_signed(), i64::from(u32::MAX)).into());
    let (enable_annotations, enable_annotations_text) = expressions(raw.enable_annotations, c);
    Hypervisor {
        path: c.path("path", raw.path),
        accelerator: c.word("accelerator", &raw.accelerator, Accelerator::ALL),
        tcg_tb_size: Some(Mib(c.number("tcg_tb_size", raw.tcg_tb_size, 0, 4096).into())).filter(|size| size.0 > 0),
        machine_type: c.word("machine_type", &raw.machine_type, MachineType::ALL),
        machine_accelerators: c.options("machine_accelerators", raw.machine_accelerators),
        cpu_features: c.options("cpu_features", raw.cpu_features),
        kernel: if raw.kernel.is_empty() { host.guest.join("vmlinux") } else { c.path("kernel", raw.kernel) },
        root: guest_root(raw.initrd, raw.image, raw.rootfs_type, host, c),
        kernel_params: c.line("kernel_params", raw.kernel_params),
        firmware: if raw.firmware.is_empty() { None } else { Some(c.path("firmware", raw.firmware)) },
        vcpus,
        max_vcpus: max_vcpus(raw.default_maxvcpus, vcpus, host, c),
        memory,
        max_memory: max_memory(raw.default_maxmemory, memory, host, c),
        // Zero means "the default" in existing files.
        memory_slots: c.number(
            "memory_slots",
            if raw.memory_slots == 0 { 10 } else { raw.memory_slots },
            1,
            MOST_SLOTS,
        ),
        overhead_vcpus: overhead_vcpus(raw.overhead_vcpus, c),
        overhead_memory: Mib(c.number("overhead_memory", raw.overhead_memory, 0, i64::from(u32::MAX)).into()),
        // Existing files may ask for none or for too many; both have always been corrected.
        bridges: c.number("default_bridges", raw.default_bridges, 0, i64::from(u32::MAX)).clamp(1, 5),
        virtio_fs: VirtioFs {
            daemon: c.path("virtio_fs_daemon", raw.virtio_fs_daemon),
            cache: c.word("virtio_fs_cache", &raw.virtio_fs_cache, CacheMode::ALL),
            queue_size: queue_size(raw.virtio_fs_queue_size, c),
            extra_args: extra_args(raw.virtio_fs_extra_args, c),
        },
        hugepages: raw.enable_hugepages,
        mem_prealloc: raw.enable_mem_prealloc,
        entropy_source: c.path("entropy_source", raw.entropy_source),
        vhost_net: !raw.disable_vhost_net,
        seccomp_sandbox: c.options("seccompsandbox", raw.seccompsandbox),
        guest_hook_path: c.line("guest_hook_path", raw.guest_hook_path),
        debug: raw.enable_debug,
        templates,
        enable_annotations,
        enable_annotations_text,
        valid_hypervisor_paths: raw.valid_hypervisor_paths,
        valid_virtio_fs_daemon_paths: raw.valid_virtio_fs_daemon_paths,
        valid_entropy_sources: raw.valid_entropy_sources,
    }
}

/// Below 0 means all of the host, 0 means the default, more than the host has means the host.
fn vcpus(value: f64, host: &Host, c: &mut Check<'_>) -> f32 {
    if !value.is_finite() {
        c.wrong("default_vcpus", value, "must be a finite number");
        return 1.0;
    }
    let most = f64::from(host.cpus);
    let value = match value {
        v if v < 0.0 => most,
        0.0 => 1.0,
        v => v.min(most),
    };
    value as f32
}

fn max_vcpus(value: i64, vcpus: f32, host: &Host, c: &mut Check<'_>) -> u32 {
    let value = c.number("default_maxvcpus", value, 0, i64::from(u32::MAX));
    let most = if value == 0 { host.cpus } else { value.min(host.cpus) };
    most.max(vcpus.ceil() as u32)
}

fn max_memory(value: i64, memory: Mib, host: &Host, c: &mut Check<'_>) -> Mib {
    let value = Mib(c.number("default_maxmemory", value, 0, i64::from(u32::MAX)).into());
    if value.0 != 0 && value < memory {
        c.wrong("default_maxmemory", value.0, format!("must be 0 or at least default_memory ({})", memory.0));
    }
    let most = if value.0 == 0 { host.memory } else { value.min(host.memory) };
    most.max(memory)
}

fn overhead_vcpus(value: f64, c: &mut Check<'_>) -> f32 {
    if !(0.0..=64.0).contains(&value) {
        c.wrong("overhead_vcpus", value, "must be 0 to 64");
        return 0.0;
    }
    value as f32
}

fn queue_size(value: i64, c: &mut Check<'_>) -> u32 {
    let size = c.number("virtio_fs_queue_size", value, 2, 1024);
    if !size.is_power_of_two() {
        c.wrong("virtio_fs_queue_size", value, "must be a power of two");
    }
    size
}

fn guest_root(initrd: String, image: String, fs: String, host: &Host, c: &mut Check<'_>) -> GuestRoot {
    match (initrd.is_empty(), image.is_empty()) {
        (true, true) => GuestRoot::Initrd(host.guest.join("initrd.img")),
        (false, true) => GuestRoot::Initrd(c.path("initrd", initrd)),
        (true, false) => {
            let known = ["ext4", "xfs", "erofs"].map(|fs| (fs, fs));
            let fs = c.word("rootfs_type", &fs, &known);
            GuestRoot::Image { path: c.path("image", image), fs: fs.to_owned() }
        }
        (false, false) => {
            c.wrong("image", format!("{image:?}"), "must be empty when initrd is set");
            GuestRoot::Initrd(initrd.into())
        }
    }
}

/// What the runtime itself decides about the daemon cannot be decided twice, least
/// of all by an annotation that would share another directory.
fn extra_args(args: Vec<String>, c: &mut Check<'_>) -> Vec<String> {
    const OURS: [&str; 6] = ["--shared-dir", "--socket-path", "--socket", "--fd", "--print-capabilities", "--tag"];
    for arg in &args {
        let name = arg.split('=').next().unwrap_or(arg);
        if OURS.contains(&name) || arg.chars().any(char::is_control) || arg.contains("source=") {
            c.wrong("virtio_fs_extra_args", format!("{arg:?}"), "is set by the runtime or not usable");
        }
    }
    args
}

/// Each expression has to match a whole name: `kernel` must not open `kernel_params`.
fn expressions(texts: Vec<String>, c: &mut Check<'_>) -> (Vec<Regex>, Vec<String>) {
    let mut compiled = Vec::new();
    for text in &texts {
        match Regex::new(&format!("^(?:{text})$")) {
            Ok(regex) => compiled.push(regex),
            Err(error) => c.wrong("enable_annotations", format!("{text:?}"), format!("no regular expression: {error}")),
        }
    }
    (compiled, texts)
}

fn agent(raw: RawAgent, runtime_create: Option<i64>, c: &mut Check<'_>) -> Agent {
    let dial_timeout = match (raw.dial_timeout, raw.reconnect_timeout_ms) {
        (None, None) => DIAL,
        (Some(seconds), None) => c.seconds("dial_timeout", seconds),
        (None, Some(millis)) => c.millis("reconnect_timeout_ms", millis),
        (Some(_), Some(millis)) => {
            c.wrong("reconnect_timeout_ms", millis, "must not stand beside dial_timeout, which says the same");
            DIAL
        }
    };
    // The two runtimes keep it in different sections; the agent's own is the newer.
    let create_container_timeout = match (raw.create_container_timeout, runtime_create) {
        (None, None) => CREATE,
        (Some(seconds), _) => c.seconds("create_container_timeout", seconds),
        (None, Some(seconds)) => {
            Check { section: RUNTIME, problems: c.problems }.seconds("create_container_timeout", seconds)
        }
    };
    Agent {
        debug: raw.enable_debug,
        debug_console: raw.debug_console_enabled,
        kernel_modules: kernel_modules(raw.kernel_modules, c),
        policy: Some(raw.policy).filter(|policy| !policy.is_empty()),
        // The guest kernel refuses more than this to ordinary users.
        container_pipe_size: c.number("container_pipe_size", raw.container_pipe_size, 0, 1 << 20),
        server_port: c.number("server_port", raw.server_port, 1, i64::from(u32::MAX) - 1),
        log_port: c.number("log_port", raw.log_port, 1, i64::from(u32::MAX) - 1),
        dial_timeout,
        request_timeout: c.millis("request_timeout_ms", raw.request_timeout_ms),
        health_check_timeout: c.millis("health_check_request_timeout_ms", raw.health_check_request_timeout_ms),
        create_container_timeout,
    }
}

fn kernel_modules(lines: Vec<String>, c: &mut Check<'_>) -> Vec<KernelModule> {
    let mut modules = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next() {
            // modprobe would take it for an option.
            Some(name) if !name.starts_with('-') => {
                modules.push(KernelModule { name, parameters: words.collect() });
            }
            _ => c.wrong("kernel_modules", format!("{line:?}"), "must be a module name and its parameters"),
        }
    }
    modules
}

fn runtime(raw: RawRuntime, c: &mut Check<'_>) -> Runtime {
    let network = c.word("internetworking_model", &raw.internetworking_model, NetworkModel::ALL);
    if raw.disable_new_netns && network != NetworkModel::None {
        c.wrong("disable_new_netns", true, "needs internetworking_model = \"none\"");
    }
    Runtime {
        debug: raw.enable_debug,
        network,
        new_netns: !raw.disable_new_netns,
        disable_guest_seccomp: raw.disable_guest_seccomp,
        sandbox_cgroup_only: raw.sandbox_cgroup_only,
        static_sizing: raw.static_sandbox_resource_mgmt,
        bind_mounts: bind_mounts(raw.sandbox_bind_mounts, c),
        disable_guest_empty_dir: raw.disable_guest_empty_dir,
        kubelet_root: c.path("kubelet_root_dir", raw.kubelet_root_dir),
    }
}

fn bind_mounts(entries: Vec<String>, c: &mut Check<'_>) -> Vec<BindMount> {
    let mut mounts: Vec<BindMount> = Vec::new();
    for entry in entries {
        let (text, read_only) = match (entry.strip_suffix(":rw"), entry.strip_suffix(":ro")) {
            (Some(path), _) => (path, false),
            (None, Some(path)) => (path, true),
            (None, None) => (entry.as_str(), true),
        };
        let path = Path::new(text);
        let taken = mounts.iter().any(|other| other.path.file_name() == path.file_name());
        if !plain_path(text) || path.file_name().is_none() {
            c.wrong("sandbox_bind_mounts", format!("{entry:?}"), "must be an absolute path of a directory");
        } else if taken {
            c.wrong("sandbox_bind_mounts", format!("{entry:?}"), "must end in a name no other entry ends in");
        } else {
            mounts.push(BindMount { path: path.to_owned(), read_only });
        }
    }
    mounts
}
