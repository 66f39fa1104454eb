//! ContainerRuntimeConfig objects become MachineConfigs; KubeletConfig objects are
//! refused, since no kubelet here reads what they would write.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use osc_objects::{ContainerRuntimeConfig, ContainerRuntimeSettings, MachineConfigPool, PoolCondition};
use serde_json::{Value, json};

use crate::{ignition, names, selector::selects};

/// Objects that can be in effect at once; the suffix of their output has one digit.
const MOST: usize = 10;
const LEVELS: [&str; 7] = ["fatal", "panic", "error", "warn", "info", "debug", "trace"];
const SMALLEST_LOG: f64 = 8192.0;
const FEWEST_PROCESSES: i64 = 20;

/// Why a KubeletConfig is refused.
pub(super) const NO_KUBELET: &str = "the kubelet of these nodes is not configured by machine configuration; delete this object and change the kubelet's \
     own configuration";

/// A MachineConfig to be generated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Generated {
    /// Its name.
    pub(super) name: String,
    /// The pool, which is also its role.
    pub(super) pool: String,
    /// Its `spec`.
    pub(super) spec: Value,
}

/// What shall become of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Suffix of its output, to be kept on it.
    pub(super) suffix: Option<String>,
    /// MachineConfigs that shall exist, or why none shall.
    pub(super) outcome: Result<Vec<Generated>, String>,
}

/// Suffixes in use.
pub(super) fn suffixes(all: &[Arc<ContainerRuntimeConfig>]) -> BTreeSet<String> {
    all.iter().filter_map(|one| one.annotations().get(names::SUFFIX).cloned()).collect()
}

/// Plans for one object. `taken` are the suffixes in use by any.
pub(super) fn plan(
    config: &ContainerRuntimeConfig,
    taken: &BTreeSet<String>,
    pools: &[Arc<MachineConfigPool>],
) -> Plan {
    let free = || {
        let all = std::iter::once(String::new()).chain((1..MOST).map(|number| number.to_string()));
        all.into_iter().find(|suffix| !taken.contains(suffix))
    };
    let suffix = config.annotations().get(names::SUFFIX).cloned().or_else(free);
    let outcome = match &suffix {
        None => Err(format!("at most {MOST} ContainerRuntimeConfigs can be in effect; delete one")),
        Some(suffix) => generate(config, suffix, pools),
    };
    Plan { suffix: suffix.filter(|_| outcome.is_ok()), outcome }
}

fn generate(
    config: &ContainerRuntimeConfig,
    suffix: &str,
    pools: &[Arc<MachineConfigPool>],
) -> Result<Vec<Generated>, String> {
    let settings = config.spec.container_runtime_config.clone().unwrap_or_default();
    let files = files(&settings)?;
    let selector = config.spec.machine_config_pool_selector.as_ref();
    let selected = pools.iter().filter(|pool| selects(selector, pool.labels()));
    let dash = if suffix.is_empty() { "" } else { "-" };
    let out: Vec<Generated> = selected
        .map(|pool| Generated {
            name: format!("99-{}-generated-containerruntime{dash}{suffix}", pool.name_any()),
            pool: pool.name_any(),
            spec: json!({"config": {"ignition": {"version": ignition::VERSION}, "storage": {"files": files}}}),
        })
        .collect();
    if out.is_empty() { Err("machineConfigPoolSelector selects no pool; correct it".into()) } else { Ok(out) }
}

/// One drop-in of CRI-O per setting.
fn files(settings: &ContainerRuntimeSettings) -> Result<Vec<Value>, String> {
    if settings.overlay_size.is_some() {
        return Err("overlaySize: the storage of these nodes is not managed; remove it".into());
    }
    let mut lines: Vec<(&str, String)> = Vec::new();
    if let Some(level) = &settings.log_level {
        one_of("logLevel", level, &LEVELS)?;
        lines.push(("logLevel", format!("log_level = \"{level}\"")));
    }
    if let Some(limit) = settings.pids_limit {
        if limit != 0 && limit < FEWEST_PROCESSES {
            return Err(format!("pidsLimit {limit}: must be 0 or at least {FEWEST_PROCESSES}"));
        }
        lines.push(("pidsLimit", format!("pids_limit = {limit}")));
    }
    if let Some(size) = &settings.log_size_max {
        let bytes = bytes(size).ok_or_else(|| format!("logSizeMax {:?}: is no quantity", size.0))?;
        if bytes > 0.0 && bytes <= SMALLEST_LOG {
            return Err(format!("logSizeMax {}: must be at most 0 or above {SMALLEST_LOG}", size.0));
        }
        lines.push(("logSizeMax", format!("log_size_max = {bytes:.0}")));
    }
    if let Some(runtime) = &settings.default_runtime {
        one_of("defaultRuntime", runtime, &["crun", "runc"])?;
        lines.push(("defaultRuntime", format!("default_runtime = \"{runtime}\"")));
    }
    if lines.is_empty() {
        return Err("containerRuntimeConfig sets nothing; set something or delete this object".into());
    }
    let file = |(name, line): (&str, String)| {
        let text = format!("[crio]\n  [crio.runtime]\n    {line}\n");
        json!({"path": format!("/etc/crio/crio.conf.d/01-ctrcfg-{name}"), "mode": 0o644, "overwrite": true,
            "contents": {"source": ignition::data_url(text.as_bytes())}})
    };
    Ok(lines.into_iter().map(file).collect())
}

fn one_of(field: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(format!("{field} `{value}`: must be one of {}", allowed.join(", ")))
}

/// A quantity as a number; the suffixes people use for sizes.
fn bytes(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: f64 = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        "Ti" => 1099511627776.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| (number * factor).trunc())
}

/// The conditions once the last one says this; none if they do already.
pub(super) fn conditions(before: &[PoolCondition], outcome: Result<(), &str>, now: &str) -> Option<Vec<Value>> {
    /// More would only be history.
    const KEPT: usize = 9;
    let (kind, message) = match outcome {
        Ok(()) => ("Success", "Success"),
        Err(problem) => ("Failure", problem),
    };
    if before.last().is_some_and(|last| last.type_ == kind && last.message == message) {
        return None;
    }
    let kept = before.iter().skip(before.len().saturating_sub(KEPT));
    let mut out: Vec<Value> = kept.map(|one| serde_json::to_value(one).unwrap_or_default()).collect();
    out.push(json!({"type": kind, "status": "True", "lastTransitionTime": now, "reason": "", "message": message}));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: Value, suffix: Option<&str>) -> ContainerRuntimeConfig {
        let annotations = suffix.map(|suffix| json!({names::SUFFIX: suffix}));
        serde_json::from_value(json!({"metadata": {"name": "c", "annotations": annotations},
            "spec": {"machineConfigPoolSelector": {"matchLabels": {"p": ""}}, "containerRuntimeConfig": settings}}))
        .expect("a ContainerRuntimeConfig")
    }

    fn pools(labelled: &[&str]) -> Vec<Arc<MachineConfigPool>> {
        let pool = |name: &&str| {
            let pool = json!({"metadata": {"name": name, "labels": {"p": ""}}, "spec": {}});
            Arc::new(serde_json::from_value(pool).expect("a pool"))
        };
        labelled.iter().map(pool).collect()
    }

    #[test]
    fn row_26_each_setting_becomes_a_drop_in() {
        let settings = json!({"logLevel": "debug", "pidsLimit": 0, "logSizeMax": "1Mi", "defaultRuntime": "crun"});
        let found = plan(&config(settings, None), &BTreeSet::new(), &pools(&["a", "b"]));
        let generated = found.outcome.unwrap();
        let names: Vec<_> = generated.iter().map(|one| (one.name.as_str(), one.pool.as_str())).collect();
        assert_eq!(names, [("99-a-generated-containerruntime", "a"), ("99-b-generated-containerruntime", "b")]);
        let parsed = crate::spec::Spec::parse(&generated[0].spec).unwrap();
        let texts: Vec<_> = parsed
            .ignition
            .files
            .iter()
            .map(|(path, file)| {
                let text = String::from_utf8(file.contents.clone().unwrap().bytes).unwrap();
                let table: toml::Table = text.parse().unwrap();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), table["crio"]["runtime"].to_string())
            })
            .collect();
        assert_eq!(
            texts,
            [
                ("01-ctrcfg-defaultRuntime", "{ default_runtime = \"crun\" }"),
                ("01-ctrcfg-logLevel", "{ log_level = \"debug\" }"),
                ("01-ctrcfg-logSizeMax", "{ log_size_max = 1048576 }"),
                ("01-ctrcfg-pidsLimit", "{ pids_limit = 0 }"),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn row_27_what_cannot_be_is_refused() {
        for (settings, want) in [
            (json!({"pidsLimit": 5}), "pidsLimit 5"),
            (json!({"pidsLimit": -1}), "pidsLimit -1"),
            (json!({"logLevel": "loud"}), "logLevel `loud`"),
            (json!({"logSizeMax": "8192"}), "logSizeMax 8192"),
            (json!({"logSizeMax": "many"}), "logSizeMax"),
            (json!({"defaultRuntime": "kata"}), "defaultRuntime"),
            (json!({"overlaySize": "8G"}), "overlaySize"),
            (json!({}), "sets nothing"),
        ] {
            let problem = plan(&config(settings.clone(), None), &BTreeSet::new(), &pools(&["a"])).outcome.unwrap_err();
            assert!(problem.contains(want), "{settings}: {problem}");
        }
        assert!(plan(&config(json!({"logSizeMax": -1}), None), &BTreeSet::new(), &pools(&["a"])).outcome.is_ok());
        assert!(plan(&config(json!({"pidsLimit": 20}), None), &BTreeSet::new(), &[]).outcome.is_err(), "no pool");
    }

    #[test]
    fn row_27_the_eleventh_has_no_place() {
        let settings = || json!({"pidsLimit": 20});
        let mut taken = BTreeSet::new();
        for number in 0..MOST {
            let found = plan(&config(settings(), None), &taken, &pools(&["a"]));
            let want = if number == 0 { String::new() } else { number.to_string() };
            assert_eq!(found.suffix.as_ref(), Some(&want));
            taken.insert(want);
        }
        let eleventh = plan(&config(settings(), None), &taken, &pools(&["a"]));
        assert!(eleventh.suffix.is_none() && eleventh.outcome.is_err());
        let kept = plan(&config(settings(), Some("3")), &taken, &pools(&["a"]));
        assert_eq!(kept.outcome.unwrap()[0].name, "99-a-generated-containerruntime-3");
    }

    #[test]
    fn conditions_are_appended_and_bounded() {
        let mut all: Vec<PoolCondition> = Vec::new();
        for round in 0..30 {
            let problem = format!("problem {round}");
            let outcome = if round % 2 == 0 { Ok(()) } else { Err(problem.as_str()) };
            let new = conditions(&all, outcome, "2020-01-01T00:00:00Z").expect("something new");
            all = new.into_iter().map(|one| serde_json::from_value(one).expect("a condition")).collect();
            assert_eq!(conditions(&all, outcome, "2021-01-01T00:00:00Z"), None);
        }
        assert_eq!((all.len(), all.last().unwrap().message.as_str()), (10, "problem 29"));
    }
}
