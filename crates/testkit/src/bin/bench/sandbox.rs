//! One sandbox under `ctr`, beside runc and a bare boot.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use osc_testkit::{
    bare,
    command::{self, until},
    host::{BUSYBOX, Host, LIMIT},
    processes, templates,
};

use crate::{ROUNDS, Times};

fn timed(command: Command) -> Duration {
    command::run(command, b"", LIMIT).ok().took
}

fn runc(host: &Host, options: &[&str], process: &[&str]) -> Command {
    let mut command = host.ctr_command(&["run", "--runtime", "io.containerd.runc.v2"]);
    command.args(options).args([BUSYBOX, &host.name()]).args(process);
    command
}

/// A configuration whose sandboxes always boot.
pub fn booting(host: &Host) -> PathBuf {
    let file = host.root.join("booting.toml");
    fs::write(&file, templates::switched_off(&fs::read_to_string(host.configuration()).unwrap())).unwrap();
    file
}

/// Start to end of a container, and of a process in a running one.
pub fn times(host: &Host, times: &mut Times) {
    let sandbox = host.detach(&["sleep", "100000"]);
    let plain = host.name();
    let mut start = host.ctr_command(&["run", "--runtime", "io.containerd.runc.v2", "--detach", BUSYBOX, &plain]);
    start.args(["sleep", "100000"]);
    timed(start);
    let booting = booting(host);
    // The first sandbox above had it made.
    templates::template(host);
    for round in 0..=ROUNDS {
        let bare = host.tokio.block_on(bare::boot_to_agent_ready());
        let runc_run = timed(runc(host, &["--rm"], &["true"]));
        let sandbox_run = timed(host.run_command(&host.name(), &["--rm"], &["true"]));
        let booted_run = timed(host.run_command_with(&booting, &host.name(), &["--rm"], &["true"]));
        let sandbox_exec = host.exec(&sandbox, &[], &["true"]).ok().took;
        let runc_exec = host.exec(&plain, &[], &["true"]).ok().took;
        // The first round warms caches.
        if round > 0 {
            times.add("bare boot", bare);
            times.add("runc run", runc_run);
            times.add("sandbox run", sandbox_run);
            times.add("booted run", booted_run);
            times.add("sandbox exec", sandbox_exec);
            times.add("runc exec", runc_exec);
        }
    }
    host.delete(&sandbox);
    host.delete(&plain);
}

/// Of a sandbox that only sleeps; MiB and percent of a core.
pub struct Idle {
    /// All host processes of the sandbox.
    pub total: f64,
    /// Its shim.
    pub shim: f64,
    /// Its shared file system.
    pub virtiofsd: f64,
    /// Its machine with the touched guest memory.
    pub qemu: f64,
    /// What the guest itself lacks of its memory.
    pub guest: f64,
    /// All host processes.
    pub cpu: f64,
}

/// Measures a sandbox at rest, made with `configuration`.
pub fn idle(host: &Host, configuration: &Path) -> Idle {
    let id = host.name();
    timed(host.run_command_with(configuration, &id, &["--detach"], &["sleep", "100000"]));
    let meminfo = host.exec(&id, &[], &["cat", "/proc/meminfo"]).ok().text();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: f64 = available.trim().trim_end_matches("kB").trim().parse().unwrap();
    // Boot-time work in guest and shim settles first.
    until(Duration::from_secs(5), || false);
    let root = host.root.to_str().unwrap();
    let of = |word| processes::of_sandboxes(&[word, root]).into_iter().map(|process| process.pid).collect::<Vec<_>>();
    let [shim, virtiofsd, qemu] = ["containerd-shim-kata-v2", "virtiofsd", "qemu-system"].map(of);
    let mib = |pids: &[i32]| pids.iter().filter_map(|pid| processes::pss_kib(*pid)).sum::<u64>() as f64 / 1024.0;
    let all: Vec<i32> = [&shim[..], &virtiofsd, &qemu].concat();
    let (ticks, began) = (cpu_ticks(&all), Instant::now());
    until(Duration::from_secs(20), || false);
    let cpu = (cpu_ticks(&all) - ticks) as f64 / began.elapsed().as_secs_f64();
    let idle = Idle {
        total: mib(&all),
        shim: mib(&shim),
        virtiofsd: mib(&virtiofsd),
        qemu: mib(&qemu),
        guest: 2048.0 - available / 1024.0,
        cpu, // a hundred ticks a second: ticks per second are percent
    };
    host.delete(&id);
    idle
}

/// User and system time of processes, in ticks of 10 ms.
fn cpu_ticks(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Fields 14 and 15 of proc(5); what follows the name begins with field 3.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    pids.iter().map(of).sum()
}
