//! The guest kernel's command line. What each word saves is measured in
//! `docs/boot-time.md`.

use super::spec::{Accelerator, Cpus};

/// Words every guest gets.
const ALWAYS: &[&str] = &[
    // The console a kernel can write to before any module is loaded.
    "console=ttyS0",
    // A guest that panics ends at once, and with it QEMU (`-no-reboot`).
    "panic=1",
    "reboot=k",
    // The virtual clock source is steady; skip watching it.
    "tsc=reliable",
    "no_timer_check",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    // A guest with one processor would rewrite every lock in its kernel, and again when a second is added.
    "noreplace-smp",
    // Mandatory access control is the host's; sandboxing by programs themselves stays.
    "lsm=landlock",
    "audit=0",
    // Room for memory to be added must not cost 64 MiB of bounce buffers no virtual device uses.
    "swiotlb=noforce",
    // Huge pages make khugepaged reserve tens of MiB of a small guest.
    "transparent_hugepage=never",
    // Network cards keep the names the kernel gives until the agent renames them.
    "net.ifnames=0",
    // One hierarchy for the agent.
    "cgroup_no_v1=all",
    UNUSED,
];

/// Parts of a distribution kernel that take a tenth of its start and that no
/// guest uses: the event directories of tracefs, certificates for modules (the
/// modules come with the kernel), encrypted keys.
const UNUSED: &str = "initcall_blacklist=ftrace_check_for_weak_functions,trace_eval_init,tracer_init_tracefs,\
                      init_kprobe_trace,load_system_certificate_list,init_encrypted";

/// Keys of which every word counts, so that ours and the configured ones add up.
const REPEATED: &[&str] = &["console"];

/// The command line for a guest with `cpus`, quiet unless `debug`, followed by
/// the configured words. A configured word replaces ours of the same key.
pub fn kernel_command_line(cpus: Cpus, debug: bool, configured: &str) -> String {
    let (cpus, volume) = (format!("nr_cpus={}", cpus.max), if debug { "agent.log=debug" } else { "quiet" });
    let ours = ALWAYS.iter().copied().chain([cpus.as_str(), volume]);
    let configured: Vec<&str> = configured.split_whitespace().collect();
    let replaced = |word: &str| {
        let key = key(word);
        !REPEATED.contains(&key) && configured.iter().any(|other| self::key(other) == key)
    };
    ours.filter(|word| !replaced(word)).chain(configured.iter().copied()).collect::<Vec<_>>().join(" ")
}

fn key(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
}

/// A word that only holds for an accelerator and this host: emulation passes the
/// host's time stamp counter through, and a guest that knows its rate need not
/// measure it for a tenth of a second.
pub(super) fn clock_word(accelerator: Accelerator, host_khz: Option<u64>) -> Option<String> {
    match accelerator {
        Accelerator::Tcg { .. } => host_khz.map(|khz| format!("tsc_early_khz={khz}")),
        Accelerator::Kvm => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUS: Cpus = Cpus { boot: 1, max: 4 };

    #[test]
    fn configured_words_replace_ours() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("", &["console=ttyS0", "quiet", "nr_cpus=4", "swiotlb=noforce"], &["agent.log=debug"]),
            ("lsm=selinux x", &["lsm=selinux x"], &["lsm=landlock"]),
            ("console=hvc0", &["console=ttyS0", "console=hvc0"], &[]),
            ("initcall_blacklist=a", &["initcall_blacklist=a"], &["trace_eval_init"]),
        ];
        for (configured, present, absent) in rows {
            let line = kernel_command_line(CPUS, false, configured);
            assert!(present.iter().all(|word| line.contains(word)), "{configured}: {line}");
            assert!(!absent.iter().any(|word| line.contains(word)), "{configured}: {line}");
        }
    }

    #[test]
    fn debugging_is_not_quiet() {
        let line = kernel_command_line(CPUS, true, "");
        assert!(line.contains("agent.log=debug") && !line.contains("quiet"), "{line}");
    }

    #[test]
    fn only_emulation_is_told_the_clock_rate() {
        assert_eq!(clock_word(Accelerator::TCG, Some(2_000_000)).as_deref(), Some("tsc_early_khz=2000000"));
        assert_eq!(clock_word(Accelerator::TCG, None), None);
        assert_eq!(clock_word(Accelerator::Kvm, Some(2_000_000)), None);
    }
}
