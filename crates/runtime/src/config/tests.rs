//! The whole way from text to checked configuration.
//!
//! `OSC_REFRESH=1 cargo test -p osc-runtime` rewrites the golden files; read the diff.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use super::*;

fn host() -> Host {
    Host { cpus: 4, memory: Mib(8192), guest: "/guest".into() }
}

fn config(text: &str) -> Config {
    Config::for_host(text, host()).unwrap()
}

fn qemu(line: &str) -> String {
    format!("[hypervisor.qemu]\n{line}")
}

fn annotations(rows: &[(&str, &str)]) -> HashMap<String, String> {
    rows.iter().map(|(name, value)| (format!("io.katacontainers.{name}"), (*value).to_owned())).collect()
}

/// A configuration that lets pods change everything.
fn open() -> Config {
    config(&qemu(
        "enable_annotations = [\".*\"]\nkernel_params = \"a=1\"\nvalid_hypervisor_paths = [\"/usr/bin/qemu-*\"]\n",
    ))
}

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/golden").join(name);
    if std::env::var_os("OSC_REFRESH").is_some() {
        fs::write(&path, found).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(want == found, "{} differs from:\n{found}", path.display());
}

#[test]
fn the_shipped_file_is_explained_and_says_the_defaults() {
    let paths = DefaultPaths {
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        kernel: "/guest/vmlinux".into(),
        initrd: "/guest/initrd.img".into(),
        virtiofsd: "/usr/libexec/virtiofsd".into(),
    };
    let text = default_toml(&paths);
    golden("configuration.toml", &text);
    let (shipped, built_in) = (config(&text), config(""));
    let debug = |config: &Config| format!("{:?}{:?}{:?}", config.hypervisor, config.agent, config.runtime);
    assert_eq!(debug(&shipped), debug(&built_in));
}

#[test]
fn annotations_are_documented() {
    golden("../../../../../docs/annotations.md", &annotations_markdown());
}

/// Settings that the stock files of both runtimes carry.
#[test]
fn stock_files_load() {
    let go = config(include_str!("golden/stock-go.toml"));
    assert_eq!(go.agent.dial_timeout, Duration::from_secs(45));
    assert!(!go.runtime.sandbox_cgroup_only);
    assert_eq!(go.hypervisor.root, GuestRoot::Image { path: "/opt/kata/share/kata.image".into(), fs: "ext4".into() });
    let rs = config(include_str!("golden/stock-rs.toml"));
    assert_eq!(rs.agent.dial_timeout, Duration::from_secs(5));
    assert_eq!(rs.agent.create_container_timeout, Duration::from_secs(30));
    assert!(rs.runtime.static_sizing);
}

#[test]
fn sizes_are_bounded_by_the_host() {
    // text; vcpus, max_vcpus, memory, max_memory
    for (text, want) in [
        ("", (1.0, 4, 2048, 8192)),
        ("default_vcpus = -1", (4.0, 4, 2048, 8192)),
        ("default_vcpus = 0", (1.0, 4, 2048, 8192)),
        ("default_vcpus = 1.5\ndefault_maxvcpus = 1", (1.5, 2, 2048, 8192)),
        ("default_vcpus = 64", (4.0, 4, 2048, 8192)),
        ("default_maxvcpus = 64", (1.0, 4, 2048, 8192)),
        ("default_memory = 16384", (1.0, 4, 16384, 16384)),
        ("default_memory = 64\ndefault_maxmemory = 128", (1.0, 4, 64, 128)),
    ] {
        let hypervisor = config(&qemu(text)).hypervisor;
        let found = (hypervisor.vcpus, hypervisor.max_vcpus, hypervisor.memory.0, hypervisor.max_memory.0);
        assert_eq!(found, want, "{text}");
    }
}

#[test]
fn wrong_settings_are_named_with_what_is_allowed() {
    for (section, line, allowed) in [
        ("hypervisor.qemu", "accelerator = \"xen\"", "\"auto\" or \"kvm\" or \"tcg\""),
        ("hypervisor.qemu", "tcg_tb_size = -1", "0 to 4096"),
        ("hypervisor.qemu", "machine_type = \"pc\"", "\"q35\""),
        ("hypervisor.qemu", "machine_accelerators = \"a b\"", "without blanks"),
        ("hypervisor.qemu", "kernel_params = \"a\\nb\"", "control characters"),
        ("hypervisor.qemu", "kernel = \"vmlinux\"", "absolute path"),
        ("hypervisor.qemu", "default_vcpus = nan", "finite"),
        ("hypervisor.qemu", "default_memory = 32", "64 to"),
        ("hypervisor.qemu", "default_maxmemory = 1024", "at least default_memory (2048)"),
        ("hypervisor.qemu", "memory_slots = 300", "1 to 256"),
        ("hypervisor.qemu", "overhead_vcpus = -0.1", "0 to 64"),
        ("hypervisor.qemu", "virtio_fs_cache = \"some\"", "\"never\""),
        ("hypervisor.qemu", "virtio_fs_queue_size = 1000", "power of two"),
        ("hypervisor.qemu", "virtio_fs_extra_args = [\"--shared-dir=/\"]", "set by the runtime"),
        ("hypervisor.qemu", "enable_annotations = [\"(\"]", "no regular expression"),
        ("hypervisor.qemu", "shared_fs = \"virtio-9p\"", "not supported; only \"virtio-fs\""),
        ("agent.kata", "kernel_modules = [\"-r x\"]", "module name"),
        ("agent.kata", "request_timeout_ms = 0", "1 to"),
        ("agent.kata", "create_container_timeout = 0", "1 to 86400"),
        ("runtime", "create_container_timeout = 0", "1 to 86400"),
        ("runtime", "internetworking_model = \"bridge\"", "\"tcfilter\""),
        ("runtime", "disable_new_netns = true", "internetworking_model"),
        ("runtime", "sandbox_bind_mounts = [\"relative\"]", "absolute path"),
        ("runtime", "sandbox_bind_mounts = [\"/\"]", "absolute path"),
        ("runtime", "kubelet_root_dir = \"\"", "absolute path"),
        ("factory", "vm_cache_number = 1", "not supported; only 0"),
        ("factory", "template_path = \"templates\"", "absolute path"),
    ] {
        let error = Config::for_host(&format!("[{section}]\n{line}"), host()).unwrap_err();
        let ConfigError::Invalid { problems, .. } = &error else { panic!("{line}: {error}") };
        let [problem] = &problems[..] else { panic!("{line}: {error}") };
        let name = line.split(' ').next().unwrap();
        assert_eq!(problem.path, format!("{section}.{name}"), "{line}");
        assert!(problem.allowed.contains(allowed), "{line}: {}", problem.allowed);
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = "[hypervisor.qemu]\ndefault_memory = 1\ninitrd = \"/a\"\nimage = \"/b\"\nno_such = 1\n\
        [agent.kata]\ndial_timeout = 1\nreconnect_timeout_ms = 1\n\
        [runtime]\nsandbox_bind_mounts = [\"/a/x\", \"/b/x:rw\"]";
    let ConfigError::Invalid { problems, .. } = Config::for_host(text, host()).unwrap_err() else { panic!() };
    let mut paths: Vec<_> = problems.iter().map(|problem| problem.path.rsplit('.').next().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["default_memory", "image", "no_such", "reconnect_timeout_ms", "sandbox_bind_mounts"]);
}

#[test]
fn lists_are_taken_apart() {
    let config = config(
        "[agent.kata]\nkernel_modules = [\"e1000e A=3,3 B=1\", \"i915\"]\n\
         [runtime]\nsandbox_bind_mounts = [\"/a\", \"/b:ro\", \"/c:rw\"]",
    );
    let module = |name: &str, parameters: &[&str]| KernelModule {
        name: name.into(),
        parameters: parameters.iter().map(|p| (*p).to_owned()).collect(),
    };
    assert_eq!(config.agent.kernel_modules, [module("e1000e", &["A=3,3", "B=1"]), module("i915", &[])]);
    let mount = |path: &str, read_only| BindMount { path: path.into(), read_only };
    assert_eq!(config.runtime.bind_mounts, [mount("/a", true), mount("/b", true), mount("/c", false)]);
}

#[test]
fn pods_change_what_they_may() {
    let config = open()
        .annotated(&annotations(&[
            ("config.hypervisor.default_vcpus", "2.5"),
            ("config.hypervisor.default_memory", "3Gi"),
            ("config.hypervisor.default_max_vcpus", "3"),
            ("config.hypervisor.kernel_params", "b=2"),
            ("config.hypervisor.path", "/usr/bin/qemu-kvm"),
            ("config.hypervisor.image", "/pod.image"),
            ("config.hypervisor.virtio_fs_extra_args", r#"["--log-level=debug"]"#),
            ("config.hypervisor.enable_iommu", "false"),
            ("config.runtime.sandbox_cgroup_only", "false"),
            ("config.runtime.internetworking_model", "none"),
            ("config.runtime.create_container_timeout", "120"),
            ("config.agent.kernel_modules", "e1000e A=1; i915"),
            ("config.agent.policy", "cGFja2FnZSBh"),
            ("config.agent.container_pipe_size", "4096"),
            ("container.resource.swappiness", "10"),
            ("pkg.oci.bundle_path", "/x"),
        ]))
        .unwrap();
    let (hypervisor, agent) = (&config.hypervisor, &config.agent);
    assert_eq!((hypervisor.vcpus, hypervisor.max_vcpus, hypervisor.memory), (2.5, 3, Mib(3072)));
    assert_eq!(
        (hypervisor.kernel_params.as_str(), hypervisor.path.to_str().unwrap()),
        ("a=1 b=2", "/usr/bin/qemu-kvm")
    );
    assert!(matches!(&hypervisor.root, GuestRoot::Image { path, .. } if path.as_path() == Path::new("/pod.image")));
    assert_eq!(hypervisor.virtio_fs.extra_args, ["--log-level=debug"]);
    assert_eq!((config.runtime.sandbox_cgroup_only, config.runtime.network), (false, NetworkModel::None));
    assert_eq!((agent.create_container_timeout, agent.container_pipe_size), (Duration::from_secs(120), 4096));
    assert_eq!((agent.kernel_modules.len(), agent.policy.as_deref()), (2, Some("package a")));
}

#[test]
fn pods_change_nothing_they_may_not() {
    let closed = config(&qemu("enable_annotations = [\"kernel\", \"default_.*\"]"));
    for (name, value, enabled) in [
        ("kernel", "/k", true),
        ("default_memory", "512", true),
        ("kernel_params", "x", false),
        ("image", "/i", false),
        ("kernel_hash", "00", false),
        ("no_such", "1", false),
    ] {
        let result = closed.annotated(&annotations(&[(&format!("config.hypervisor.{name}"), value)]));
        match result {
            Ok(_) => assert!(enabled, "{name}"),
            Err(error) => {
                assert!(!enabled && matches!(error, ConfigError::NotEnabled { .. }), "{name}: {error}");
                let text = error.to_string();
                assert!(text.contains(name) && text.contains(value) && text.contains("enable_annotations"), "{text}");
            }
        }
    }
}

#[test]
fn wrong_annotations_are_named_as_the_pod_wrote_them() {
    for (name, value, allowed) in [
        ("config.hypervisor.default_memory", "lots", "units"),
        ("config.hypervisor.default_memory", "32", "64 to"),
        ("config.hypervisor.default_memory", "99999999999999999999", "units"),
        ("config.hypervisor.default_vcpus", "two", "a number"),
        ("config.hypervisor.enable_hugepages", "yes", "true or false"),
        ("config.hypervisor.enable_iommu", "true", "not supported"),
        ("config.hypervisor.path", "/tmp/evil", "patterns"),
        ("config.hypervisor.virtio_fs_daemon", "/tmp/evil", "patterns"),
        ("config.hypervisor.virtio_fs_extra_args", "--x", "JSON"),
        ("config.hypervisor.virtio_fs_extra_args", "[\"--fd=3\"]", "set by the runtime"),
        ("config.hypervisor.asset_hash_type", "md5", "sha512"),
        ("config.hypervisor.firmware_hash", "00", "no such file"),
        ("config.hypervisor.no_such", "1", "no such annotation"),
        ("config.runtime.sandbox_bind_mounts", "/etc", "no such annotation"),
        ("config.runtime.hypervisor_name", "clh", "not supported"),
        ("config.runtime.disable_new_netns", "true", "internetworking_model"),
        ("config.agent.policy", "%", "base64"),
        ("enable_vcpus_pinning", "true", "not supported"),
    ] {
        let error = open().annotated(&annotations(&[(name, value)])).unwrap_err();
        let ConfigError::Annotation { problems } = &error else { panic!("{name}: {error}") };
        let [problem] = &problems[..] else { panic!("{name}: {error}") };
        assert_eq!(
            (problem.path.as_str(), &problem.value),
            (&*format!("io.katacontainers.{name}"), &format!("{value:?}"))
        );
        assert!(problem.allowed.contains(allowed), "{name}: {}", problem.allowed);
    }
}

#[test]
fn a_pod_can_demand_digests() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "kernel").unwrap();
    let path = file.path().to_str().unwrap();
    let demand = |hash: &str| {
        open().annotated(&annotations(&[
            ("config.hypervisor.kernel", path),
            ("config.hypervisor.kernel_hash", hash),
            ("config.hypervisor.asset_hash_type", "sha512"),
        ]))
    };
    let ConfigError::Digest { found, .. } = demand("00").unwrap_err() else { panic!() };
    assert_eq!(found.len(), 128);
    demand(&found.to_uppercase()).unwrap();
}

#[test]
fn memory_has_units() {
    for (text, mib) in
        [("512", 512), ("512M", 512), ("1G", 1024), ("1GiB", 1024), ("1048576Ki", 1024), ("536870912B", 512)]
    {
        let config = open().annotated(&annotations(&[("config.hypervisor.default_memory", text)])).unwrap();
        assert_eq!(config.hypervisor.memory, Mib(mib), "{text}");
    }
}
