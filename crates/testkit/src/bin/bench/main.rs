//! The benchmark table: every figure beside a reference measured in the same
//! run, interleaved with it, because machines drift. Prints a table, writes JSON.

#![allow(clippy::unwrap_used, reason = "a failed measurement has no result")]

mod pods;
mod sandbox;

use std::{collections::BTreeMap, fs, time::Duration};

use osc_testkit::host::{Host, built};
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
    let mut times = Times::default();
    let host = Host::start();
    sandbox::times(&host, &mut times);
    let idle = sandbox::idle(&host, &host.configuration());
    let booted = sandbox::idle(&host, &sandbox::booting(&host));
    host.end();
    pods::times(&mut times);

    let reference = times.median("bare boot") + times.median("runc run");
    let agent = fs::metadata(built("target/release/kata-agent")).unwrap().len();
    let rows = [
        ("`ctr run --rm … true` in a sandbox", format!("{:.2} s", times.median("sandbox run")), "below 2.0 s"),
        ("… booted, as the first one is", format!("{:.2} s", times.median("booted run")), "below 2.0 s"),
        (
            "… booted ÷ (bare boot to agent ready + runc)",
            format!("{:.2}", times.median("booted run") / reference),
            "1.25",
        ),
        ("… runc", format!("{:.2} s", times.median("runc run")), "reference"),
        ("… bare boot to agent ready", format!("{:.2} s", times.median("bare boot")), "reference"),
        ("`exec` of `true`", format!("{:.3} s", times.median("sandbox exec")), "0.10 s"),
        ("… ÷ runc", format!("{:.2}", times.median("sandbox exec") / times.median("runc exec")), "–"),
        ("idle sandbox, all host processes, PSS", format!("{:.1} MiB", idle.total), "190 MiB"),
        ("… shim", format!("{:.1} MiB", idle.shim), "8 MiB"),
        ("… virtiofsd", format!("{:.1} MiB", idle.virtiofsd), "5 MiB"),
        ("… QEMU with touched guest memory", format!("{:.1} MiB", idle.qemu), "–"),
        ("… booted, all host processes", format!("{:.1} MiB", booted.total), "190 MiB"),
        ("guest of 2048 MiB: not in MemAvailable", format!("{:.1} MiB", idle.guest), "120 MiB"),
        ("idle CPU, all host processes", format!("{:.2} % of a core", idle.cpu), "1 %"),
        ("pod from API to running", format!("{:.2} s", times.median("pod start")), "–"),
        ("… `osc run` to running", format!("{:.2} s", times.median("osc run")), "reference"),
        ("… difference", format!("{:.0} ms", 1000.0 * (times.median("pod start") - times.median("osc run"))), "150 ms"),
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
