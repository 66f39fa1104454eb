//! Processors and memory the host adds while the guest runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use osc_agent_protocol::agent::OnlineCPUMemRequest;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{GuestError, Result, read, write};

/// How often to look for processors that are still coming.
const PERIOD: Duration = Duration::from_millis(50);
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts plugged processors and, unless only those are meant, memory to use. With
/// `wait`, gives the processors time to appear; without, takes what is there.
/// Control groups of version 2 follow by themselves: a group that names no
/// processors may use them all.
///
/// # Errors
/// [`GuestError::Processors`] when fewer came than were promised.
pub async fn online(request: &OnlineCPUMemRequest) -> Result<()> {
    online_below(Path::new("/sys/devices/system"), request, PATIENCE).await
}

async fn online_below(root: &Path, request: &OnlineCPUMemRequest, patience: Duration) -> Result<()> {
    let patience = if request.wait { patience } else { Duration::ZERO };
    online_processors(&root.join("cpu"), request.nb_cpus, patience).await?;
    if !request.cpu_only {
        for block in numbered(&root.join("memory"), "memory") {
            switch_on(&block.join("online"))?;
        }
    }
    Ok(())
}

async fn online_processors(root: &Path, wanted: u32, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut got = 0;
    loop {
        for processor in numbered(root, "cpu") {
            if got < wanted && switch_on(&processor.join("online"))? {
                got += 1;
            }
        }
        if got >= wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(GuestError::Processors { got, wanted, waited: patience });
        }
        ticks.tick().await;
    }
}

/// Directories called `prefix` and a number, in order.
fn numbered(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let number = |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok() };
    let mut found: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter_map(|p| Some((number(&p)?, p)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Writes 1 to a switch that is off and says whether it did. The first processor
/// of many machines has no switch.
fn switch_on(switch: &Path) -> Result<bool> {
    if !switch.exists() || read(switch)?.trim() != "0" {
        return Ok(false);
    }
    write(switch, "1").map(|()| true)
}

/// Tells a kernel without firmware tables where memory was plugged.
///
/// # Errors
/// [`GuestError`] when the kernel has no such interface or refuses an address.
pub fn probe_memory(addresses: &[u64]) -> Result<()> {
    let probe = Path::new("/sys/devices/system/memory/probe");
    addresses.iter().try_for_each(|address| write(probe, &format!("{address:#x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("agent-hotplug-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("cpu/cpu0")).unwrap();
            fs::create_dir_all(root.join("cpu/cpufreq")).unwrap();
            Self(root)
        }

        fn set(&self, path: &str, state: &str) {
            fs::create_dir_all(self.0.join(path)).unwrap();
            fs::write(self.0.join(path).join("online"), state).unwrap();
        }

        fn get(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path).join("online")).unwrap().trim().to_owned()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn request(nb_cpus: u32, cpu_only: bool) -> OnlineCPUMemRequest {
        OnlineCPUMemRequest { wait: true, nb_cpus, cpu_only, ..Default::default() }
    }

    #[tokio::test]
    async fn only_as_many_processors_as_asked_for() {
        let machine = Machine::new("cpus");
        machine.set("cpu/cpu1", "1\n");
        machine.set("cpu/cpu2", "0\n");
        machine.set("cpu/cpu10", "0\n");
        machine.set("memory/memory9", "0\n");
        online_below(&machine.0, &request(1, true), PATIENCE).await.unwrap();
        assert_eq!(["cpu2", "cpu10"].map(|c| machine.get(&format!("cpu/{c}"))), ["1", "0"]);
        assert_eq!(machine.get("memory/memory9"), "0");
        online_below(&machine.0, &request(0, false), PATIENCE).await.unwrap();
        assert_eq!(machine.get("memory/memory9"), "1");
    }

    #[tokio::test]
    async fn processors_may_come_late() {
        let machine = Machine::new("late");
        let request = request(1, true);
        let work = online_below(&machine.0, &request, PATIENCE);
        let plug = async {
            tokio::task::yield_now().await;
            machine.set("cpu/cpu1", "0");
        };
        let (done, ()) = tokio::join!(work, plug);
        done.unwrap();
        assert_eq!(machine.get("cpu/cpu1"), "1");
    }

    #[tokio::test]
    async fn processors_that_do_not_come_are_an_error() {
        let machine = Machine::new("never");
        let error = online_below(&machine.0, &request(2, true), Duration::from_millis(60)).await.unwrap_err();
        assert!(matches!(error, GuestError::Processors { got: 0, wanted: 2, .. }), "{error}");
        let no_wait = OnlineCPUMemRequest { wait: false, ..request(1, true) };
        assert!(online_below(&machine.0, &no_wait, PATIENCE).await.is_err());
    }
}
