//! Pods made through CRI: several containers in one virtual machine, and a
//! specification that comes out as written.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use k8s_cri::v1;
use osc_testkit::{
    command::until,
    host::{Host, LIMIT},
    pod::Pod,
    processes,
};

fn forever() -> [&'static str; 2] {
    ["sleep", "100000"]
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

#[test]
fn two_containers_share_one_machine_but_not_their_files() {
    let host = Host::start();
    let machines = || processes::of_sandboxes(&["qemu-system", host.root.to_str().unwrap()]).len();
    let pod = Pod::start(&host, |_| {});
    let one = pod.add("one", &forever(), |_| {});
    let two = pod.add("two", &["sh", "-c", "echo two; exec sleep 100000"], |_| {});
    assert_eq!(machines(), 1);

    pod.out(&one, "echo hello > /tmp/file; nc -l -p 7000 -e echo shared >/dev/null 2>&1 &");
    assert_ne!(pod.sh(&two, "cat /tmp/file").code, 0, "root file systems are shared");
    assert!(until(LIMIT, || pod.sh(&two, "nc 127.0.0.1 7000 </dev/null").out == "shared"));
    assert_eq!(pod.out(&one, "readlink /proc/self/ns/ipc"), pod.out(&two, "readlink /proc/self/ns/ipc"));
    assert_eq!(pod.out(&one, "readlink /proc/self/ns/uts"), pod.out(&two, "readlink /proc/self/ns/uts"));
    assert_ne!(pod.out(&one, "readlink /proc/self/ns/pid"), pod.out(&two, "readlink /proc/self/ns/pid"));
    pod.out(&one, "echo seen > /dev/shm/word");
    assert_eq!(pod.out(&two, "cat /dev/shm/word"), "seen");

    // The second one restarts alone.
    pod.remove(&two);
    assert_eq!(pod.out(&one, "cat /tmp/file"), "hello");
    let two = pod.add("two-again", &["sh", "-c", "exit 7"], |_| {});
    assert_eq!(pod.exit_code(&two), 7);
    assert_eq!(machines(), 1);

    pod.delete();
    assert!(until(LIMIT, || machines() == 0));
    host.end();
}

#[test]
fn a_shared_process_namespace_shows_the_neighbours() {
    let host = Host::start();
    let options = || v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..Default::default() };
    let pod = Pod::start(&host, |config| {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().namespace_options = Some(options());
    });
    let share = |config: &mut v1::ContainerConfig| security(config).namespace_options = Some(options());
    let one = pod.add("one", &["sleep", "31415"], share);
    let two = pod.add("two", &forever(), share);
    assert_eq!(pod.out(&one, "readlink /proc/self/ns/pid"), pod.out(&two, "readlink /proc/self/ns/pid"));
    assert!(pod.out(&two, "ps").contains("31415"));
    pod.delete();
    host.end();
}

#[test]
fn the_specification_comes_out_as_written() {
    let host = Host::start();
    let pod = Pod::start(&host, |config| {
        config.hostname = "named".into();
        config.dns_config = Some(v1::DnsConfig {
            servers: vec!["192.0.2.53".into()],
            searches: vec!["example.org".into()],
            options: vec!["ndots:5".into()],
        });
        let linux = config.linux.get_or_insert_default();
        linux.sysctls.insert("net.ipv4.ip_local_port_range".into(), "30000 40000".into());
    });
    let container = pod.add("strict", &forever(), |config| {
        config.envs = vec![v1::KeyValue { key: "GREETING".into(), value: "hello there".into() }];
        config.working_dir = "/tmp".into();
        let security = security(config);
        security.run_as_user = Some(v1::Int64Value { value: 1234 });
        security.run_as_group = Some(v1::Int64Value { value: 2345 });
        security.supplemental_groups = vec![3456];
        security.readonly_rootfs = true;
        security.no_new_privs = true;
        security.capabilities = Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    });
    assert_eq!(pod.out(&container, "id -u; id -g; id -G"), "1234\n2345\n2345 3456");
    assert_eq!(pod.out(&container, "hostname"), "named");
    assert_eq!(pod.out(&container, "echo $GREETING; pwd"), "hello there\n/tmp");
    let resolver = pod.out(&container, "cat /etc/resolv.conf");
    for word in ["nameserver 192.0.2.53", "search example.org", "options ndots:5"] {
        assert!(resolver.contains(word), "{resolver}");
    }
    assert_eq!(pod.out(&container, "cat /proc/sys/net/ipv4/ip_local_port_range"), "30000\t40000");
    assert!(pod.sh(&container, "touch /file").err.contains("Read-only"), "the root file system is writable");
    let status = pod.out(&container, "cat /proc/1/status");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    let default = pod.add("default", &forever(), |_| {});
    assert!(pod.out(&default, "cat /proc/1/status").contains("CapEff:\t00000000a80425fb"));
    assert_ne!(pod.sh(&default, "mount -t tmpfs none /mnt").code, 0);
    pod.delete();
    host.end();
}

#[test]
fn a_privileged_container_changes_its_guest_only() {
    let host = Host::start();
    let parameter = "/proc/sys/kernel/pid_max";
    // A kernel without modules has no such file.
    let modules = || fs::read_to_string("/proc/modules").unwrap_or_default();
    let (loaded, before) = (modules(), fs::read_to_string(parameter).unwrap());
    let privileged = |config: &mut v1::PodSandboxConfig| {
        config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    };
    let pod = Pod::start(&host, privileged);
    let container = pod.add("root", &forever(), |config| security(config).privileged = true);
    pod.out(&container, "mkdir -p /mnt && mount -t tmpfs none /mnt && touch /mnt/file");
    pod.out(&container, &format!("echo 12345 > {parameter}"));
    assert_eq!(pod.out(&container, &format!("cat {parameter}")), "12345");
    assert_eq!(fs::read_to_string(parameter).unwrap(), before);
    // The guest's kernel loads the driver of a kind of link when the first is asked for.
    assert_eq!(pod.sh(&container, "grep -c '^dummy ' /proc/modules").out, "0");
    pod.out(&container, "ip link add probe type dummy");
    assert_eq!(pod.out(&container, "grep -c '^dummy ' /proc/modules"), "1");
    assert_eq!(modules(), loaded);
    pod.delete();
    host.end();
}

#[test]
fn volumes_show_what_the_host_has_and_read_only_means_it() {
    let host = Host::start();
    let dir = host.root.join("volume");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    let mount = |inside: &str, readonly| v1::Mount {
        container_path: inside.into(),
        host_path: dir.to_str().unwrap().into(),
        readonly,
        ..Default::default()
    };
    let pod = Pod::start(&host, |_| {});
    let container = pod.add("one", &forever(), |config| config.mounts = vec![mount("/rw", false), mount("/ro", true)]);
    assert_eq!(pod.out(&container, "cat /ro/file"), "from the host");
    pod.out(&container, "echo -n from the guest > /rw/file");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "from the guest");
    assert!(pod.sh(&container, "echo x > /ro/file").err.contains("Read-only"));
    // Files that appear later are seen too.
    fs::write(dir.join("later"), "later").unwrap();
    assert!(until(LIMIT, || pod.sh(&container, "cat /ro/later").out == "later"));
    pod.delete();
    assert_eq!(fs::read_to_string(dir.join("later")).unwrap(), "later");
    host.end();
}

#[test]
fn the_guest_keeps_what_it_read_until_the_host_changes_it() {
    const MIB: u64 = 1 << 20;
    let host = Host::start();
    let dir = host.root.join("volume");
    fs::create_dir(&dir).unwrap();
    let write = |letter: &str, size| fs::write(dir.join("file"), letter.repeat(size as usize)).unwrap();
    write("a", MIB);
    let pod = Pod::start(&host, |_| {});
    let container = pod.add("one", &forever(), |config| {
        config.mounts = vec![v1::Mount {
            container_path: "/volume".into(),
            host_path: dir.to_str().unwrap().into(),
            ..Default::default()
        }];
    });
    let served = || -> u64 {
        let servers = processes::with(&["virtiofsd", host.root.to_str().unwrap()]);
        servers.iter().map(|server| processes::bytes_read(server.pid).unwrap_or(0)).sum()
    };
    let costs = |script: &str| {
        let before = served();
        let out = pod.out(&container, script);
        (served() - before, out)
    };

    // Files that have just been made are read a second time.
    assert!(until(LIMIT, || costs("true").0 < 100_000), "each command reads its program: {:?}", costs("true"));
    let last = "tail -c 1 /volume/file";
    assert!(until(LIMIT, || costs("cat /volume/file | md5sum").0 < 100_000));
    assert!(served() > MIB, "the figures are not those of the file server: it has read the volume's file");
    for letter in ["b", "c"] {
        write(letter, MIB);
        assert_eq!(pod.out(&container, last), letter, "what was written to the volume is not seen");
    }
    // The guest asks for the size of a file once a second.
    write("d", 2 * MIB);
    assert!(until(LIMIT, || pod.out(&container, "wc -c < /volume/file") == (2 * MIB).to_string()));
    assert_eq!(pod.out(&container, last), "d");
    assert!(costs("true").0 < 100_000);
    pod.delete();
    host.end();
}

#[test]
fn limits_hold_in_the_guest_and_change_while_the_container_runs() {
    let host = Host::start();
    let pod = Pod::start(&host, |_| {});
    let resources = |memory: i64, quota: i64, shares: i64| v1::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_period: 100_000,
        cpu_quota: quota,
        cpu_shares: shares,
        ..Default::default()
    };
    let container = pod.add("limited", &forever(), |config| {
        config.linux.get_or_insert_default().resources = Some(resources(64 << 20, 50_000, 512));
    });
    let seen = || pod.out(&container, "cd /sys/fs/cgroup && cat memory.max cpu.max cpu.weight");
    assert_eq!(seen(), "67108864\n50000 100000\n20");
    let update = host.cri.update_container(&container, resources(32 << 20, 20_000, 1024));
    host.tokio.block_on(update).unwrap();
    assert_eq!(seen(), "33554432\n20000 100000\n39");
    let spins = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    pod.out(&container, spins);
    let throttled = pod.out(&container, "sed -n 's/^throttled_usec //p' /sys/fs/cgroup/cpu.stat");
    assert!(throttled.parse::<u64>().unwrap() > 0, "a fifth of a processor was not exceeded: {throttled}");
    let greedy = pod.sh(&container, "tail -c 200m /dev/zero");
    assert_eq!(greedy.code, 137, "{greedy:?}");
    pod.delete();
    host.end();
}

#[test]
fn memory_that_runs_out_ends_the_container_as_oom_killed() {
    let host = Host::start();
    let pod = Pod::start(&host, |_| {});
    let container = pod.add("greedy", &["sh", "-c", "sleep 1; exec tail /dev/zero"], |config| {
        config.linux.get_or_insert_default().resources =
            Some(v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    });
    assert_eq!(pod.exit_code(&container), 137);
    assert!(until(LIMIT, || pod.status(&container).reason == "OOMKilled"), "{:?}", pod.status(&container));
    pod.delete();
    host.end();
}
