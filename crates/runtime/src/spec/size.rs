//! How large the virtual machine must be for what runs in it.

use std::collections::{BTreeSet, HashMap};

use oci_spec::runtime::{LinuxResources, Spec};
use osc_agent_protocol::Kind;

use super::{cpuset::cpus_in, kind::PodKind};
use crate::config::{Config, LEAST_MEMORY, Mib};

/// What a pod or a container may use; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processor time per wall-clock time.
    pub cpus: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Huge pages in bytes, on top of `memory`.
    pub hugepages: u64,
    /// Host processors it is bound to.
    pub cpuset: BTreeSet<u32>,
}

/// The size of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Most virtual CPUs it can grow to.
    pub max_vcpus: u32,
    /// Memory.
    pub memory: Mib,
    /// Most memory it can grow to.
    pub max_memory: Mib,
    /// Whether the limits asked for more than the configuration or the host allows.
    pub clamped: bool,
}

/// Limits that no machine can be made for: it would have this little memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the sandbox would have {0}, and no guest starts with less than {LEAST_MEMORY}: raise the pod's memory \
         limit, or overhead_memory in the configuration"
)]
pub struct SizeError(pub Mib);

impl SizeError {
    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Limits {
    /// The limits of a whole pod, which the engine writes onto its sandbox container.
    pub fn of_pod(annotations: &HashMap<String, String>) -> Self {
        let number =
            |name: &str| -> Option<i64> { annotations.get(&format!("io.kubernetes.cri.sandbox-{name}"))?.parse().ok() };
        Self {
            cpus: ratio(number("cpu-quota"), number("cpu-period").and_then(|period| u64::try_from(period).ok())),
            memory: number("memory").and_then(positive),
            ..Self::default()
        }
    }

    /// The limits of one container.
    pub fn of_container(resources: Option<&LinuxResources>) -> Self {
        let Some(resources) = resources else { return Self::default() };
        let cpu = resources.cpu().as_ref();
        let hugepages = resources.hugepage_limits().iter().flatten();
        Self {
            cpus: cpu.and_then(|cpu| ratio(cpu.quota(), cpu.period())),
            memory: resources.memory().as_ref().and_then(|memory| memory.limit()).and_then(positive),
            hugepages: hugepages.filter_map(|limit| positive(limit.limit())).fold(0, u64::saturating_add),
            cpuset: cpu.and_then(|cpu| cpu.cpus().as_deref()).and_then(cpus_in).unwrap_or_default(),
        }
    }

    /// What the engine says about a sandbox before its virtual machine boots.
    pub fn of_sandbox(kind: &PodKind, spec: &Spec) -> Self {
        match (kind, spec.annotations()) {
            (PodKind::Single, _) => {
                Self::of_container(spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))
            }
            (_, Some(annotations)) => Self::of_pod(annotations),
            (_, None) => Self::default(),
        }
    }
}

/// Engines write 0 or -1 for "unlimited", and the largest page-aligned number for it
/// when they read it back from a cgroup.
fn positive(value: i64) -> Option<u64> {
    const UNLIMITED: i64 = i64::MAX - 0xfff;
    (1..UNLIMITED).contains(&value).then_some(value.unsigned_abs())
}

fn ratio(quota: Option<i64>, period: Option<u64>) -> Option<f64> {
    let quota = positive(quota?)?;
    // The kernel's default when only a quota is given.
    let period = period.filter(|period| *period > 0).unwrap_or(100_000);
    Some(quota as f64 / period as f64)
}

/// The size a virtual machine boots with.
///
/// Static sizing adds the configured overhead to the limits of the pod and never grows
/// after; whatever has no limit is at its default. Dynamic sizing boots at the defaults.
///
/// # Errors
/// [`SizeError`] when there would be too little memory for any guest.
pub fn boot_size(config: &Config, limits: &Limits) -> Result<Size, SizeError> {
    let hypervisor = &config.hypervisor;
    let defaults = Wanted { vcpus: f64::from(hypervisor.vcpus), memory: hypervisor.memory };
    if !config.runtime.static_sizing {
        return defaults.bounded(config);
    }
    let wanted = Wanted {
        vcpus: limits.cpus.map_or(defaults.vcpus, |cpus| f64::from(hypervisor.overhead_vcpus) + cpus),
        memory: limits.memory.map_or(defaults.memory, |memory| {
            let bytes = memory.saturating_add(limits.hugepages).saturating_add(hypervisor.overhead_memory.bytes());
            // Memory comes in blocks of two mebibytes.
            Mib(Mib::holding(bytes).0.next_multiple_of(2))
        }),
    };
    let size = wanted.bounded(config)?;
    Ok(Size { max_vcpus: size.vcpus, max_memory: size.memory, ..size })
}

/// The size a dynamically sized virtual machine needs for `containers`; statically sized
/// ones stay as they booted.
///
/// # Errors
/// [`SizeError`] when there would be too little memory for any guest.
pub fn grown_size<'l>(config: &Config, containers: impl IntoIterator<Item = &'l Limits>) -> Result<Size, SizeError> {
    let (mut cpus, mut bytes, mut cpuset) = (0.0, 0u64, BTreeSet::<u32>::new());
    for limits in containers {
        cpus += limits.cpus.unwrap_or(0.0);
        bytes = bytes.saturating_add(limits.memory.unwrap_or(0)).saturating_add(limits.hugepages);
        cpuset.extend(&limits.cpuset);
    }
    let defaults = f64::from(config.hypervisor.vcpus);
    // Bound to processors but not to a share of them: one virtual CPU for each.
    let vcpus = if cpus == 0.0 && !cpuset.is_empty() { cpuset.len() as f64 } else { defaults + cpus };
    let memory = Mib(config.hypervisor.memory.0.saturating_add(Mib::holding(bytes).0));
    Wanted { vcpus, memory }.bounded(config)
}

struct Wanted {
    vcpus: f64,
    memory: Mib,
}

impl Wanted {
    fn bounded(self, config: &Config) -> Result<Size, SizeError> {
        if self.memory < LEAST_MEMORY {
            return Err(SizeError(self.memory));
        }
        let (max_vcpus, max_memory) = (config.hypervisor.max_vcpus, config.hypervisor.max_memory);
        // Quotas are decimal fractions: 1.2 + 0.8 must not become 3.
        let vcpus = (self.vcpus - 1e-6).ceil().max(1.0) as u32;
        Ok(Size {
            vcpus: vcpus.min(max_vcpus),
            max_vcpus,
            memory: self.memory.min(max_memory),
            max_memory,
            clamped: vcpus > max_vcpus || self.memory > max_memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn config(text: &str) -> Config {
        let host = Host { cpus: 8, memory: Mib(16384), guest: "/guest".into() };
        Config::for_host(text, host).unwrap()
    }

    fn limits(cpus: f64, mib: u64) -> Limits {
        Limits { cpus: (cpus > 0.0).then_some(cpus), memory: (mib > 0).then_some(mib << 20), ..Limits::default() }
    }

    #[test]
    fn a_static_sandbox_is_its_limits_and_the_overhead() {
        let config = config("[hypervisor.qemu]\noverhead_vcpus = 0.2\noverhead_memory = 32");
        // limits; virtual CPUs, MiB, clamped
        for (given, want) in [
            (limits(0.0, 0), (1, 2048, false)),
            (limits(0.5, 100), (1, 132, false)),
            (limits(0.8, 101), (1, 134, false)),
            (limits(0.9, 256), (2, 288, false)),
            (limits(2.0, 0), (3, 2048, false)),
            (limits(0.0, 512), (1, 544, false)),
            (limits(64.0, 512), (8, 544, true)),
            (limits(1.0, 1 << 30), (2, 16384, true)),
        ] {
            let size = boot_size(&config, &given).unwrap();
            assert_eq!((size.vcpus, size.memory.0, size.clamped), want, "{given:?}");
        }
        let size = boot_size(&config, &limits(1.0, 100)).unwrap();
        assert_eq!((size.max_vcpus, size.max_memory), (2, Mib(132)), "never grows");
        assert_eq!(boot_size(&config, &limits(0.0, 16)), Err(SizeError(Mib(48))));
    }

    #[test]
    fn a_dynamic_sandbox_grows_with_its_containers() {
        let config = config("[hypervisor.qemu]\ndefault_maxvcpus = 6\n[runtime]\nstatic_sandbox_resource_mgmt = false");
        let size = boot_size(&config, &limits(4.0, 4096)).unwrap();
        assert_eq!((size.vcpus, size.max_vcpus, size.memory), (1, 6, Mib(2048)));
        let bound = Limits { cpuset: [0, 2, 4].into(), ..Limits::default() };
        let huge = Limits { hugepages: 64 << 20, ..limits(0.0, 64) };
        for (given, want) in [
            (vec![], (1, 2048, false)),
            (vec![limits(0.5, 100), limits(0.5, 0)], (2, 2148, false)),
            (vec![limits(0.2, 0), limits(1.9, 0)], (4, 2048, false)),
            (vec![bound.clone()], (3, 2048, false)),
            (vec![bound, limits(1.0, 0)], (2, 2048, false)),
            (vec![huge], (1, 2176, false)),
            (vec![limits(10.0, 0)], (6, 2048, true)),
        ] {
            let size = grown_size(&config, &given).unwrap();
            assert_eq!((size.vcpus, size.memory.0, size.clamped), want, "{given:?}");
        }
    }

    #[test]
    fn engines_write_unlimited_in_several_ways() {
        let pod = |rows: &[(&str, &str)]| {
            let annotations =
                rows.iter().map(|(k, v)| (format!("io.kubernetes.cri.sandbox-{k}"), (*v).to_owned())).collect();
            Limits::of_pod(&annotations)
        };
        assert_eq!(pod(&[("cpu-quota", "150000"), ("cpu-period", "100000"), ("memory", "1048576")]), limits(1.5, 1));
        assert_eq!(pod(&[("cpu-quota", "50000")]).cpus, Some(0.5));
        for (name, value) in
            [("cpu-quota", "-1"), ("cpu-quota", "0"), ("memory", "0"), ("memory", "-1"), ("memory", "x")]
        {
            assert_eq!(pod(&[(name, value)]), Limits::default(), "{name}={value}");
        }
        assert_eq!(pod(&[("memory", "9223372036854771712")]), Limits::default());
    }

    #[test]
    fn container_limits_are_read_from_its_resources() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"cpu": {"quota": 20000, "period": 10000, "cpus": "1-2"}, "memory": {"limit": 1048576},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#,
        )
        .unwrap();
        let want = Limits { hugepages: 4 << 20, cpuset: [1, 2].into(), ..limits(2.0, 1) };
        assert_eq!(Limits::of_container(Some(&resources)), want);
        assert_eq!(Limits::of_container(None), Limits::default());
    }
}
