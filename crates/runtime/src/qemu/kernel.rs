//! The guest kernel's command line.

use super::spec::Cpus;

/// Words every guest gets. What each saves is measured in `docs/boot-time.md`.
const ALWAYS: &[&str] = &[
    // The console a kernel can write to before any module is loaded.
    "console=ttyS0",
    // A guest that panics ends at once, and with it QEMU (`-no-reboot`).
    "panic=1",
    "reboot=k",
    // The virtual clock source is steady; skip watching and calibrating it.
    "tsc=reliable",
    "no_timer_check",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    // Network cards keep the names the kernel gives until the agent renames them.
    "net.ifnames=0",
    // One hierarchy for the agent.
    "cgroup_no_v1=all",
    // Huge pages make khugepaged reserve tens of MiB of a small guest.
    "transparent_hugepage=never",
];

/// The command line for a guest with `cpus`, quiet unless `debug`, followed by
/// the configured words, which therefore win.
pub fn kernel_command_line(cpus: Cpus, debug: bool, configured: &str) -> String {
    let mut words: Vec<String> = ALWAYS.iter().map(|word| (*word).to_owned()).collect();
    words.push(format!("nr_cpus={}", cpus.max));
    if debug {
        words.push("agent.log=debug".into());
    } else {
        words.push("quiet".into());
    }
    words.extend(configured.split_whitespace().map(str::to_owned));
    words.join(" ")
}
