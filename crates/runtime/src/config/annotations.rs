//! Pod annotations that change the configuration of one sandbox.
//!
//! Whoever may create a pod writes these, so everything about the hypervisor must
//! be opened by the administrator (`enable_annotations`) and every value passes the
//! same check as the file.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    asset,
    error::{ConfigError, Problem},
    glob,
    keys::{self, Key, Type, Use},
    types::Config,
    vet::{put, take},
};

/// Prefix of all annotations of the runtime.
const PREFIX: &str = "io.katacontainers.";
/// Prefix below [`PREFIX`] of those that need the administrator's consent.
const GATED: &str = "config.hypervisor.";

/// How an annotation's text becomes the value of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As the type of the key says.
    Plain,
    /// Mebibytes, or a number with a unit.
    Memory,
    /// Added behind the configured words.
    Append,
    /// A JSON list of texts.
    Json,
    /// Items separated by `;`.
    Items,
    /// Words separated by blanks.
    Words,
    /// Text in base64.
    Base64,
}

struct Row {
    /// Name below [`PREFIX`].
    name: &'static str,
    /// Path of the key it sets.
    key: &'static str,
    form: Form,
}

const fn row(name: &'static str, key: &'static str, form: Form) -> Row {
    Row { name, key, form }
}

/// Annotations that set a key of `[hypervisor.qemu]` of the same name.
const SAME_NAME: &[&str] = &[
    "path",
    "kernel",
    "image",
    "initrd",
    "firmware",
    "firmware_volume",
    "jailer_path",
    "virtio_fs_daemon",
    "vhost_user_store_path",
    "entropy_source",
    "guest_hook_path",
    "kernel_verity_params",
    "machine_type",
    "machine_accelerators",
    "cpu_features",
    "shared_fs",
    "virtio_fs_cache",
    "block_device_driver",
    "block_device_aio",
    "cold_plug_vfio",
    "hot_plug_vfio",
    "cc_init_data",
    "default_gpu_model",
    "hugepage_type",
    "default_vcpus",
    "memory_slots",
    "virtio_fs_cache_size",
    "pcie_root_port",
    "pcie_switch_port",
    "indep_iothreads",
    "msize_9p",
    "default_gpus",
    "vhost_user_reconnect_timeout_sec",
    "block_device_num_queues",
    "block_device_queue_size",
    "network_queues",
    "memory_offset",
    "rx_rate_limiter_max_rate",
    "tx_rate_limiter_max_rate",
    "block_device_cache_set",
    "block_device_cache_direct",
    "block_device_cache_noflush",
    "disable_block_device_use",
    "disable_image_nvdimm",
    "disable_vhost_net",
    "enable_hugepages",
    "enable_mem_prealloc",
    "enable_iommu",
    "enable_iommu_platform",
    "enable_iothreads",
    "enable_virtio_mem",
    "enable_guest_swap",
    "enable_vhost_user_store",
    "reclaim_guest_freed_memory",
    "rootless",
    "use_legacy_serial",
];

/// Annotations with another name or form than their key.
const ROWS: &[Row] = &[
    row("config.hypervisor.default_memory", "hypervisor.qemu.default_memory", Form::Memory),
    row("config.hypervisor.default_max_vcpus", "hypervisor.qemu.default_maxvcpus", Form::Plain),
    row("config.hypervisor.kernel_params", "hypervisor.qemu.kernel_params", Form::Append),
    row("config.hypervisor.virtio_fs_extra_args", "hypervisor.qemu.virtio_fs_extra_args", Form::Json),
    row("config.hypervisor.numa_mapping", "hypervisor.qemu.numa_mapping", Form::Json),
    row("config.hypervisor.prefetch_files.list", "hypervisor.qemu.prefetch_list_path", Form::Plain),
    row("config.hypervisor.blk_logical_sector_size", "hypervisor.qemu.block_device_logical_sector_size", Form::Plain),
    row("config.hypervisor.blk_physical_sector_size", "hypervisor.qemu.block_device_physical_sector_size", Form::Plain),
    row("config.runtime.disable_guest_seccomp", "runtime.disable_guest_seccomp", Form::Plain),
    row("config.runtime.disable_new_netns", "runtime.disable_new_netns", Form::Plain),
    row("config.runtime.sandbox_cgroup_only", "runtime.sandbox_cgroup_only", Form::Plain),
    row("config.runtime.enable_pprof", "runtime.enable_pprof", Form::Plain),
    row("config.runtime.experimental_force_guest_pull", "runtime.experimental_force_guest_pull", Form::Plain),
    row("config.runtime.internetworking_model", "runtime.internetworking_model", Form::Plain),
    row("config.runtime.vfio_mode", "runtime.vfio_mode", Form::Plain),
    row("config.runtime.experimental", "runtime.experimental", Form::Words),
    row("config.runtime.guest_selinux_label", "runtime.guest_selinux_label", Form::Plain),
    row("config.runtime.hypervisor_name", "runtime.hypervisor_name", Form::Plain),
    row("config.runtime.agent_name", "runtime.agent_name", Form::Plain),
    row("config.runtime.shared_mounts", "runtime.shared_mounts", Form::Json),
    row("config.runtime.enable_vcpus_pinning", "runtime.enable_vcpus_pinning", Form::Plain),
    row("enable_vcpus_pinning", "runtime.enable_vcpus_pinning", Form::Plain),
    // The agent's section wins over the runtime's, as a pod wins over both.
    row("config.runtime.create_container_timeout", "agent.kata.create_container_timeout", Form::Plain),
    row("config.agent.enable_tracing", "agent.kata.enable_tracing", Form::Plain),
    row("config.agent.container_pipe_size", "agent.kata.container_pipe_size", Form::Plain),
    row("config.agent.kernel_modules", "agent.kata.kernel_modules", Form::Items),
    row("config.agent.policy", "agent.kata.policy", Form::Base64),
    row("config.agent.cdh_api_timeout", "agent.kata.cdh_api_timeout", Form::Plain),
    row("config.agent.cdh_api_timeout_ms", "agent.kata.cdh_api_timeout_ms", Form::Plain),
];

impl Config {
    /// This configuration as the annotations of a pod change it. Reads the assets whose
    /// digests the pod demands, so it blocks.
    ///
    /// Annotations outside `io.katacontainers.` and those of single containers are
    /// left alone; an unknown one below `io.katacontainers.config.` is an error,
    /// because ignoring it would run the pod in another way than it asks for.
    ///
    /// # Errors
    /// The first annotation that is not enabled, or all that have unusable values, or a
    /// digest that does not match.
    pub fn annotated(&self, annotations: &HashMap<String, String>) -> Result<Self, ConfigError> {
        let sorted: BTreeMap<_, _> = annotations.iter().collect();
        let mut change =
            Change { config: self, settings: self.settings.clone(), set: HashMap::new(), problems: vec![] };
        let mut digests = Vec::new();
        for (full, value) in sorted {
            let Some(name) = full.strip_prefix(PREFIX) else { continue };
            change.permit(full, name, value)?;
            if let Some(wanted) = asset::Wanted::parse(name) {
                digests.push((full, value, wanted));
            } else if let Some((key, form)) = find(name) {
                change.set(full, key, form, value);
            } else if name.starts_with("config.") {
                change.wrong(full, value, "no such annotation; remove it");
            }
        }
        let config = change.finish()?;
        for (annotation, value, wanted) in digests {
            asset::verify(&config, annotation, value, wanted)?;
        }
        Ok(config)
    }
}

/// The key of an annotation and how its text is read.
fn find(name: &str) -> Option<(&'static Key, Form)> {
    if let Some(row) = ROWS.iter().find(|row| row.name == name) {
        return keys::find(row.key).map(|key| (key, row.form));
    }
    let name = SAME_NAME.iter().find(|same| name.strip_prefix(GATED) == Some(same))?;
    keys::find(&format!("{}.{name}", keys::QEMU)).map(|key| (key, Form::Plain))
}

/// Settings on their way from one configuration to the next.
struct Change<'c> {
    config: &'c Config,
    settings: toml::Table,
    /// Which annotation, with which value, set which key.
    set: HashMap<String, (String, String)>,
    problems: Vec<Problem>,
}

impl Change<'_> {
    fn permit(&self, full: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(suffix) = name.strip_prefix(GATED) else { return Ok(()) };
        let hypervisor = &self.config.hypervisor;
        if hypervisor.enable_annotations.iter().any(|enabled| enabled.is_match(suffix)) {
            return Ok(());
        }
        Err(ConfigError::NotEnabled {
            annotation: full.to_owned(),
            value: value.to_owned(),
            name: suffix.to_owned(),
            listed: format!("{:?}", hypervisor.enable_annotations_text),
            files: self.config.files.clone(),
        })
    }

    fn wrong(&mut self, annotation: &str, value: &str, allowed: impl Into<String>) {
        let value = format!("{value:?}");
        self.problems.push(Problem { path: annotation.to_owned(), value, allowed: allowed.into() });
    }

    fn set(&mut self, annotation: &str, key: &Key, form: Form, text: &str) {
        if let Some(globs) = globs(self.config, key)
            && !globs.iter().any(|pattern| glob::matches(pattern, text))
        {
            return self.wrong(annotation, text, format!("must match one of the configured patterns {globs:?}"));
        }
        match read(form, key, text, take(&self.settings, key)) {
            Ok(value) => put(&mut self.settings, key, value),
            Err(allowed) => return self.wrong(annotation, text, allowed),
        }
        self.set.insert(key.path(), (annotation.to_owned(), text.to_owned()));
    }

    /// Checks the changed settings; what is wrong carries the name of its annotation.
    fn finish(mut self) -> Result<Config, ConfigError> {
        self.replace_root();
        let (files, host) = (self.config.files.clone(), self.config.host.clone());
        match Config::from_settings(self.settings, files, host) {
            Ok(config) if self.problems.is_empty() => Ok(config),
            Ok(_) => Err(ConfigError::Annotation { problems: self.problems }),
            Err(ConfigError::Invalid { problems, .. }) => {
                for problem in problems {
                    let (path, value) = match self.set.get(&problem.path) {
                        Some((annotation, text)) => (annotation.clone(), format!("{text:?}")),
                        None => (problem.path, problem.value),
                    };
                    self.problems.push(Problem { path, value, allowed: problem.allowed });
                }
                Err(ConfigError::Annotation { problems: self.problems })
            }
            Err(other) => Err(other),
        }
    }

    /// A pod that brings one kind of guest root replaces the configured other kind.
    fn replace_root(&mut self) {
        let [initrd, image] = ["initrd", "image"].map(|name| format!("{}.{name}", keys::QEMU));
        for (mine, other) in [(&initrd, &image), (&image, &initrd)] {
            if self.set.contains_key(mine)
                && !self.set.contains_key(other)
                && let Some(key) = keys::find(other)
            {
                put(&mut self.settings, key, "".into());
            }
        }
    }
}

/// The patterns values of `key` must match when a pod sets it.
fn globs<'c>(config: &'c Config, key: &Key) -> Option<&'c [String]> {
    let hypervisor = &config.hypervisor;
    match (key.section, key.name) {
        (keys::QEMU, "path") => Some(&hypervisor.valid_hypervisor_paths),
        (keys::QEMU, "virtio_fs_daemon") => Some(&hypervisor.valid_virtio_fs_daemon_paths),
        (keys::QEMU, "entropy_source") => Some(&hypervisor.valid_entropy_sources),
        _ => None,
    }
}

/// The value of `key` that `text` stands for, or what it should have been.
fn read(form: Form, key: &Key, text: &str, before: Option<&toml::Value>) -> Result<toml::Value, String> {
    let list = |items: Vec<&str>| items.into_iter().map(toml::Value::from).collect::<Vec<_>>().into();
    Ok(match form {
        Form::Plain => match key.kind {
            Type::Bool => text.parse::<bool>().map_err(|_| "must be true or false")?.into(),
            Type::Int => text.parse::<i64>().map_err(|_| "must be a whole number")?.into(),
            Type::Float => text.parse::<f64>().map_err(|_| "must be a number")?.into(),
            Type::Text => text.into(),
            Type::List => list(text.split(',').collect()),
        },
        Form::Memory => mebibytes(text)?.into(),
        Form::Append => match before.and_then(toml::Value::as_str).filter(|before| !before.is_empty()) {
            Some(before) => format!("{before} {text}").into(),
            None => text.into(),
        },
        Form::Json => {
            let items: Vec<String> = serde_json::from_str(text).map_err(|_| "must be a JSON list of texts")?;
            items.into_iter().map(toml::Value::from).collect::<Vec<_>>().into()
        }
        Form::Items => list(text.split(';').map(str::trim).filter(|item| !item.is_empty()).collect()),
        Form::Words => list(text.split_whitespace().collect()),
        Form::Base64 => {
            let bytes = STANDARD.decode(text.trim()).map_err(|_| "must be base64")?;
            String::from_utf8(bytes).map_err(|_| "must be UTF-8 text in base64")?.into()
        }
    })
}

/// `2048`, `2048Mi`, `2Gi`, `2G`, `2GiB`…: mebibytes, rounded down.
fn mebibytes(text: &str) -> Result<i64, String> {
    let wrong = || "must be mebibytes, or a number with one of the units Ki, Mi, Gi, Ti, K, M, G, T".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[digits..].trim().trim_end_matches(['b', 'B']) {
        "" if digits == text.len() => 1 << 20,
        "" => 1,
        "k" | "K" | "Ki" => 1 << 10,
        "m" | "M" | "Mi" => 1 << 20,
        "g" | "G" | "Gi" => 1 << 30,
        "t" | "T" | "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
    i64::try_from(bytes >> 20).map_err(|_| wrong())
}

/// All annotations as a table for the documentation.
pub fn annotations_markdown() -> String {
    let mut text = String::from("| annotation | value | sets | needs `enable_annotations` |\n|---|---|---|---|\n");
    let same = SAME_NAME.iter().map(|name| format!("{GATED}{name}"));
    for name in same.chain(ROWS.iter().map(|row| row.name.to_owned())) {
        let Some((key, form)) = find(&name) else { continue };
        let gated = if name.starts_with(GATED) { "yes" } else { "no" };
        let effect = match key.usage {
            Use::Only(_) => format!("`{}`, not supported: only its default", key.path()),
            Use::Idle => format!("`{}`, without effect here", key.path()),
            Use::Obeyed(_) | Use::Optional(_) => format!("`{}`", key.path()),
        };
        let _ = writeln!(text, "| `{PREFIX}{name}` | {} | {effect} | {gated} |", describe(form, key.kind));
    }
    for (name, what, _) in asset::ROWS {
        let _ =
            writeln!(text, "| `{PREFIX}{GATED}{name}` | SHA-512 in hex | demands this digest of the {what} | yes |");
    }
    text
}

fn describe(form: Form, kind: Type) -> &'static str {
    match form {
        Form::Plain if kind == Type::Text => "text",
        Form::Plain => kind.name(),
        Form::Memory => "MiB, or a number with unit",
        Form::Append => "words, added",
        Form::Json => "JSON list of texts",
        Form::Items => "items separated by `;`",
        Form::Words => "words",
        Form::Base64 => "text in base64",
    }
}
