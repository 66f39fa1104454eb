//! The benchmark table: every figure beside a reference measured in the same
//! run, interleaved with it, because machines drift. Prints a table, writes JSON.

#![allow(clippy::unwrap_used, reason = "a failed measurement has no result")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use osc_testkit::{
    bare,
    command::{self, until},
    host::{BUSYBOX, Host, LIMIT, built},
    processes,
};
use serde_json::json;

const ROUNDS: usize = 7;

/// Durations of one figure, and of its references.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    fn add(&mut self, name: &'static str, took: Duration) {
        self.0.entry(name).or_default().push(took.as_secs_f64());
    }

    fn median(&self, name: &str) -> f64 {
        let mut all = self.0[name].clone();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn least(&self, name: &str) -> f64 {
        self.0[name].iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn main() {
    let host = Host::start();
    let times = measure_times(&host);
    let idle = measure_idle(&host);
    host.end();

    let reference = times.median("bare boot") + times.median("runc run");
    let agent = fs::metadata(built("target/release/kata-agent")).unwrap().len();
    let rows = [
        ("`ctr run --rm … true` in a sandbox", format!("{:.2} s", times.median("sandbox run")), "below 2.0 s"),
        ("… ÷ (bare boot to agent ready + runc)", format!("{:.2}", times.median("sandbox run") / reference), "1.25"),
        ("… runc", format!("{:.2} s", times.median("runc run")), "reference"),
        ("… bare boot to agent ready", format!("{:.2} s", times.median("bare boot")), "reference"),
        ("`exec` of `true`", format!("{:.3} s", times.median("sandbox exec")), "0.10 s"),
        ("… ÷ runc", format!("{:.2}", times.median("sandbox exec") / times.median("runc exec")), "–"),
        ("idle sandbox, all host processes, PSS", format!("{:.1} MiB", idle.total), "190 MiB"),
        ("… shim", format!("{:.1} MiB", idle.shim), "8 MiB"),
        ("… virtiofsd", format!("{:.1} MiB", idle.virtiofsd), "5 MiB"),
        ("… QEMU with touched guest memory", format!("{:.1} MiB", idle.qemu), "–"),
        ("guest of 2048 MiB: not in MemAvailable", format!("{:.1} MiB", idle.guest), "120 MiB"),
        ("idle CPU, all host processes", format!("{:.2} % of a core", idle.cpu), "1 %"),
        ("agent binary", format!("{:.2} MB", agent as f64 / 1e6), "5 MB"),
    ];
    println!("| figure | measured | aim |\n|---|---|---|");
    for (name, value, aim) in &rows {
        println!("| {name} | {value} | {aim} |");
    }
    let least: BTreeMap<_, _> = times.0.keys().map(|name| (*name, times.least(name))).collect();
    let result = json!({
        "rounds": ROUNDS,
        "rows": rows.iter().map(|(figure, value, aim)| json!({"figure": figure, "value": value, "aim": aim})).collect::<Vec<_>>(),
        "seconds": times.0,
        "least_seconds": least,
    });
    let file = built("target").join("bench.json");
    fs::write(&file, serde_json::to_string_pretty(&result).unwrap()).unwrap();
    println!("\nall measurements: {}", file.display());
}

fn timed(command: Command) -> Duration {
    command::run(command, b"", LIMIT).ok().took
}

fn runc(host: &Host, options: &[&str], process: &[&str]) -> Command {
    let mut command = host.ctr_command(&["run", "--runtime", "io.containerd.runc.v2"]);
    command.args(options).args([BUSYBOX, &host.name()]).args(process);
    command
}

fn measure_times(host: &Host) -> Times {
    let mut times = Times::default();
    let sandbox = host.detach(&["sleep", "100000"]);
    let plain = host.name();
    let mut start = host.ctr_command(&["run", "--runtime", "io.containerd.runc.v2", "--detach", BUSYBOX, &plain]);
    start.args(["sleep", "100000"]);
    timed(start);
    for round in 0..=ROUNDS {
        let bare = host.tokio.block_on(bare::boot_to_agent_ready());
        let runc_run = timed(runc(host, &["--rm"], &["true"]));
        let sandbox_run = timed(host.run_command(&host.name(), &["--rm"], &["true"]));
        let sandbox_exec = host.exec(&sandbox, &[], &["true"]).ok().took;
        let runc_exec = host.exec(&plain, &[], &["true"]).ok().took;
        // The first round warms caches.
        if round > 0 {
            times.add("bare boot", bare);
            times.add("runc run", runc_run);
            times.add("sandbox run", sandbox_run);
            times.add("sandbox exec", sandbox_exec);
            times.add("runc exec", runc_exec);
        }
    }
    host.delete(&sandbox);
    host.delete(&plain);
    times
}

/// Of a sandbox that only sleeps; MiB and percent of a core.
struct Idle {
    total: f64,
    shim: f64,
    virtiofsd: f64,
    qemu: f64,
    guest: f64,
    cpu: f64,
}

fn measure_idle(host: &Host) -> Idle {
    let id = host.detach(&["sleep", "100000"]);
    let meminfo = host.exec(&id, &[], &["cat", "/proc/meminfo"]).ok().text();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: f64 = available.trim().trim_end_matches("kB").trim().parse().unwrap();
    // Boot-time work in guest and shim settles first.
    until(Duration::from_secs(5), || false);
    let root = host.root.to_str().unwrap();
    let of = |word| processes::with(&[word, root]).into_iter().map(|process| process.pid).collect::<Vec<_>>();
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
