//! CPU and memory: what the engine is told and what the pod's cgroup gets.

use k8s_cri::v1::LinuxContainerResources;
use serde::{Deserialize, Serialize};

use super::model::{Amounts, Container, Pod};

/// CFS period, in microseconds, as everywhere in Kubernetes.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota, in microseconds.
const MIN_QUOTA: u64 = 1_000;
/// The kernel takes no smaller weight.
const MIN_SHARES: u64 = 2;

/// What a kata sandbox costs besides the containers' memory: the emulator and
/// its translation buffer, the part of guest memory its kernel keeps, the file
/// system daemon and the shim.
pub const KATA_OVERHEAD: Amounts = Amounts { cpu_milli: Some(250), memory: Some(320 << 20) };

/// Quality of service, which decides who dies first when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Qos {
    /// Limits on both amounts of every container, and requests equal to them.
    Guaranteed,
    /// Something in between.
    Burstable,
    /// Nothing asked for, nothing limited.
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod.
pub fn qos(pod: &Pod) -> Qos {
    let nothing = Amounts::default();
    let both = |amounts: &Amounts| amounts.cpu_milli.is_some() && amounts.memory.is_some();
    if pod.all().all(|c| c.limits == nothing && c.requests == nothing) {
        Qos::BestEffort
    } else if pod.all().all(|c| both(&c.limits) && c.limits == c.requests) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What the sandbox itself costs: the manifest's word, or ours for the handler.
pub fn overhead(pod: &Pod, handler: &str) -> Amounts {
    pod.overhead.unwrap_or(if handler == "kata" { KATA_OVERHEAD } else { Amounts::default() })
}

/// What the containers may use together: the larger of what runs at the same
/// time after the start and what any init container needs beside the sidecars
/// before it. `None` as soon as one container is not limited.
fn total(pod: &Pod, of: impl Fn(&Container) -> Option<u64>) -> Option<u64> {
    let mut sidecars = 0;
    let mut peak = 0;
    for container in &pod.init {
        let amount = of(container)?;
        if container.sidecar {
            sidecars += amount;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + amount);
        }
    }
    let main = pod.containers.iter().map(of).sum::<Option<u64>>()?;
    Some(peak.max(sidecars + main))
}

/// Limits of the containers together, overhead left out.
pub fn pod_limits(pod: &Pod) -> Amounts {
    Amounts { cpu_milli: total(pod, |c| c.limits.cpu_milli), memory: total(pod, |c| c.limits.memory) }
}

/// What the containers ask for together, overhead left out.
pub fn pod_requests(pod: &Pod) -> Amounts {
    let sum = |of: fn(&Container) -> Option<u64>| total(pod, |c| Some(of(c).unwrap_or(0)));
    Amounts { cpu_milli: sum(|c| c.requests.cpu_milli), memory: sum(|c| c.requests.memory) }
}

/// Settings of the pod's cgroup, in which the sandbox's own processes live too.
pub fn cgroup(pod: &Pod, handler: &str) -> LinuxContainerResources {
    let overhead = overhead(pod, handler);
    let plus = |amount: Option<u64>, extra: Option<u64>| amount.map(|amount| amount + extra.unwrap_or(0));
    let (limits, requests) = (pod_limits(pod), pod_requests(pod));
    translate(
        &Amounts { cpu_milli: plus(requests.cpu_milli, overhead.cpu_milli), memory: None },
        &Amounts {
            cpu_milli: plus(limits.cpu_milli, overhead.cpu_milli),
            memory: plus(limits.memory, overhead.memory),
        },
    )
}

/// The sandbox's `resources`: the sum over its containers.
pub fn sandbox(pod: &Pod) -> LinuxContainerResources {
    translate(&pod_requests(pod), &pod_limits(pod))
}

/// The sandbox's `overhead`.
pub fn sandbox_overhead(pod: &Pod, handler: &str) -> LinuxContainerResources {
    let overhead = overhead(pod, handler);
    translate(&overhead, &overhead)
}

/// Settings of one container.
pub fn container(container: &Container, qos: Qos, machine_memory: u64) -> LinuxContainerResources {
    let mut resources = translate(&container.requests, &container.limits);
    resources.oom_score_adj = oom_score(container, qos, machine_memory);
    resources
}

fn translate(requests: &Amounts, limits: &Amounts) -> LinuxContainerResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut resources = LinuxContainerResources {
        cpu_shares: signed((requests.cpu_milli.unwrap_or(0) * 1024 / 1000).max(MIN_SHARES)),
        memory_limit_in_bytes: signed(limits.memory.unwrap_or(0)),
        ..Default::default()
    };
    if let Some(milli) = limits.cpu_milli.filter(|&milli| milli > 0) {
        resources.cpu_period = signed(PERIOD);
        resources.cpu_quota = signed((milli * PERIOD / 1000).max(MIN_QUOTA));
    }
    resources
}

/// Kubernetes' rule: the more of the machine's memory a container asked for, the
/// less likely it is killed.
fn oom_score(container: &Container, qos: Qos, machine_memory: u64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let asked = container.requests.memory.unwrap_or(0).saturating_mul(1000) / machine_memory.max(1);
            (1000 - i64::try_from(asked).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// Memory of this machine, in bytes.
pub fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processors of this machine.
pub fn machine_cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Manifest;

    fn pod(spec: &str) -> Pod {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        Manifest::read("test", &text).expect("good").remove(0).pod
    }

    const SIZED: &str = "{containers: [{name: a, image: i, resources: {limits: {cpu: 500m, memory: 64Mi}}}]}";
    const PART: &str =
        "{containers: [{name: a, image: i, resources: {requests: {memory: 64Mi}}}, {name: b, image: i}]}";
    const NONE: &str = "{containers: [{name: a, image: i}]}";

    #[test]
    fn classes_follow_requests_and_limits() {
        for (spec, want) in [(SIZED, Qos::Guaranteed), (PART, Qos::Burstable), (NONE, Qos::BestEffort)] {
            assert_eq!(qos(&pod(spec)), want, "{spec}");
        }
    }

    #[test]
    fn the_cgroup_holds_containers_and_overhead() {
        let sized = pod(SIZED);
        let runc = cgroup(&sized, "runc");
        assert_eq!((runc.memory_limit_in_bytes, runc.cpu_quota, runc.cpu_shares), (64 << 20, 50_000, 512));
        let kata = cgroup(&sized, "kata");
        assert_eq!((kata.memory_limit_in_bytes, kata.cpu_quota), ((64 + 320) << 20, 75_000));
        for spec in [PART, NONE] {
            let open = cgroup(&pod(spec), "kata");
            assert_eq!((open.memory_limit_in_bytes, open.cpu_quota), (0, 0), "{spec}: not limited");
        }
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let limits = |memory: &str| format!("resources: {{limits: {{memory: {memory}}}}}");
        let text = format!(
            "{{initContainers: [{{name: s, image: i, restartPolicy: Always, {}}}, {{name: i, image: i, {}}}], containers: [{{name: a, image: i, {}}}]}}",
            limits("10"),
            limits("50"),
            limits("20")
        );
        assert_eq!(pod_limits(&pod(&text)).memory, Some(60));
    }
}
