//! One boot of the guest kernel under KVM.
//!
//! The first process is a command that does nothing and ends; the kernel panics
//! about that with its exit code, which proves that kernel *and* user mode work.
//! Without an initial file system it panics for want of a root: good enough.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use crate::{
    config::Mib,
    deadline::Deadline,
    lines::Tail,
    qemu::{Accelerator, Boot, Cpus, Exit, Memory, MemoryBackend, Root, VmSpec, launch, machine::gone},
};

/// A guest kernel needs less than a second of processor time under KVM.
const LIMIT: Duration = Duration::from_secs(6);
/// A kernel under KVM that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_millis(2500);
/// How long QEMU may take to go away.
const STOP: Duration = Duration::from_secs(5);

/// How long the last words of QEMU may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

const PANIC: &str = "Kernel panic - not syncing";
/// Either ending of a kernel that works.
const ENDINGS: [&str; 2] = ["exitcode=0x00000000", "Unable to mount root fs"];
/// Not quiet: lines are the sign of life.
const WORDS: &str = "console=ttyS0 panic=-1 reboot=k tsc=reliable no_timer_check rdinit=/bin/busybox -- true";

/// Boots `kernel`; says how long it took or why it failed.
pub(super) async fn boot(qemu: &Path, kernel: &Path, root: Root, beside: &Path) -> Result<Duration, String> {
    let began = Instant::now();
    let dir = beside.with_extension(format!("probe-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let outcome = attempt(spec(qemu, kernel, root, &dir)).await;
    // Nothing of value in it, and the next trial takes it over.
    let _ = std::fs::remove_dir_all(&dir);
    outcome.map(|()| began.elapsed())
}

async fn attempt(spec: VmSpec) -> Result<(), String> {
    // What QEMU complains about is part of the verdict, not an error of its own.
    let launched = launch(spec, |_| Ok(())).with_subscriber(NoSubscriber::default());
    let machine = launched.await.map_err(|error| osc_agent_protocol::kind::chain(&error))?;
    let outcome = Deadline::after(LIMIT).run(watch_boot(&machine.console(), &machine.stderr(), machine.exited())).await;
    if machine.stop(Deadline::after(STOP)).await.is_err() {
        tracing::warn!("QEMU of the KVM trial does not go away");
    }
    match outcome {
        Ok(result) => result,
        Err(elapsed) => Err(format!("the guest kernel does not start under KVM within {:?}", elapsed.0)),
    }
}

/// Follows the console to the end, whichever it is.
async fn watch_boot(console: &Tail, stderr: &Tail, mut exited: watch::Receiver<Option<Exit>>) -> Result<(), String> {
    loop {
        let lines = console.total();
        tokio::select! {
            biased;
            () = console.wait_for(PANIC) => return judge(&console.lines()),
            exit = gone(&mut exited) => {
                // What it wrote may take a moment to arrive.
                let _ = Deadline::after(LAST_WORDS).run(stderr.wait_for("")).await;
                let words = stderr.lines().join(" | ");
                return Err(format!("QEMU with KVM ended during the boot of the guest kernel ({exit}): {words}"));
            }
            () = tokio::time::sleep(SILENCE) => if console.total() == lines {
                let last = console.lines().pop().unwrap_or_default();
                return Err(format!("the guest kernel hangs under KVM, its last line: {last:?}"));
            },
        }
    }
}

fn judge(lines: &[String]) -> Result<(), String> {
    let panic = lines.iter().rfind(|line| line.contains(PANIC)).map_or("", String::as_str);
    match ENDINGS.iter().any(|ending| panic.contains(ending)) {
        true => Ok(()),
        false => Err(format!("the guest kernel fails under KVM: {panic:?}")),
    }
}

fn spec(qemu: &Path, kernel: &Path, root: Root, dir: &Path) -> VmSpec {
    let memory = Mib(512);
    VmSpec {
        name: "kvm-trial".into(),
        dir: dir.into(),
        binary: qemu.into(),
        accelerator: Accelerator::Kvm,
        machine_accelerators: String::new(),
        cpu_features: String::new(),
        cpus: Cpus { boot: 1, max: 1 },
        memory: Memory { boot: memory, max: memory, slots: 0, backend: MemoryBackend::Memfd, prealloc: false },
        boot: Boot { kernel: kernel.into(), root, command_line: WORDS.into() },
        firmware: None,
        vsock: None,
        share: None,
        nics: Vec::new(),
        bridges: 0,
        entropy: None,
        seccomp: String::new(),
        netns: None,
        selinux_label: None,
        log_console: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deliberate_panic_is_success() {
        let rows = [
            ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000", true),
            ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", true),
            ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", false),
            ("Kernel panic - not syncing: Fatal exception", false),
        ];
        for (line, want) in rows {
            assert_eq!(judge(&["before".into(), line.into(), "after".into()]).is_ok(), want, "{line}");
        }
    }
}
