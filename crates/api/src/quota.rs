//! What objects count for in resource quotas.
//!
//! Names of amounts, scopes and the wording of refusals are those of Kubernetes; see its documentation of resource
//! quotas.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    Quantity, Resource,
    pod::{self, Resources},
    value::{array, entries, has, text},
};

/// Kinds that have a short name in quotas beside `count/<plural>`.
const SHORT_COUNTS: [&str; 6] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// Amounts that pods ask for under a name of their own and under `requests.<name>`.
const COMPUTE: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Amounts that, limited by a quota, every container has to name.
const REQUIRED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Whether objects of this kind count for anything: those with a namespace, and not what the system itself notes down.
pub fn counts(resource: &Resource) -> bool {
    resource.namespaced && resource.plural != "events" && resource.can("list")
}

/// What an object counts for.
pub fn usage(resource: &Resource, object: &Value) -> Resources {
    let mut usage = Resources::new();
    usage.insert(format!("count/{}", resource.qualified()), Quantity::units(1));
    if resource.group.is_empty() {
        if SHORT_COUNTS.contains(&resource.plural.as_str()) {
            usage.insert(resource.plural.clone(), Quantity::units(1));
        }
        match resource.plural.as_str() {
            "pods" if !pod::is_finished(object) => pod_usage(object, &mut usage),
            "services" => service_usage(object, &mut usage),
            "persistentvolumeclaims" => claim_usage(object, &mut usage),
            _ => {}
        }
    }
    usage
}

fn pod_usage(pod: &Value, usage: &mut Resources) {
    usage.insert("pods".into(), Quantity::units(1));
    asked(&pod::requests(pod), &pod::limits(pod), usage);
}

/// The names under which requests and limits count.
fn asked(requests: &Resources, limits: &Resources, usage: &mut Resources) {
    for (name, amount) in requests {
        let compute = COMPUTE.contains(&name.as_str());
        if compute || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        if compute || name.starts_with("hugepages-") || name.contains('/') {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        usage.insert(format!("limits.{name}"), *amount);
    }
}

fn service_usage(service: &Value, usage: &mut Resources) {
    let spec = &service["spec"];
    let ports = i64::try_from(array(spec, "ports").len()).unwrap_or(i64::MAX);
    let node_ports = match text(spec, "type") {
        "NodePort" => ports,
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] != false => ports,
        _ => 0,
    };
    let balancers = i64::from(text(spec, "type") == "LoadBalancer");
    usage.insert("services.nodeports".into(), Quantity::units(node_ports));
    usage.insert("services.loadbalancers".into(), Quantity::units(balancers));
}

fn claim_usage(claim: &Value, usage: &mut Resources) {
    let storage = Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO);
    usage.insert("requests.storage".into(), storage);
    let class = text(&claim["spec"], "storageClassName");
    if !class.is_empty() {
        let of_class = format!("{class}.storageclass.storage.k8s.io");
        usage.insert(format!("{of_class}/requests.storage"), storage);
        usage.insert(format!("{of_class}/persistentvolumeclaims"), Quantity::units(1));
    }
}

/// What a quota allows, by name.
pub fn hard(quota: &Value) -> Resources {
    amounts(&quota["spec"], "hard")
}

/// What is used of it, as far as that is known for what it allows now.
pub fn used(quota: &Value) -> Option<Resources> {
    let status = &quota["status"];
    let used = amounts(status, "used");
    let known = amounts(status, "hard") == hard(quota) && hard(quota).keys().all(|name| used.contains_key(name));
    known.then_some(used)
}

fn amounts(holder: &Value, key: &str) -> Resources {
    let amounts = entries(holder, key);
    amounts.filter_map(|(name, value)| Some((name.clone(), Quantity::from_value(value).ok()?))).collect()
}

/// Whether a quota is about this object: quotas with scopes are about some pods only.
pub fn covers(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let spec = &quota["spec"];
    let (scopes, expressions) = (array(spec, "scopes"), array(&spec["scopeSelector"], "matchExpressions"));
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    resource.is("", "pods")
        && scopes.iter().all(|scope| in_scope(scope.as_str().unwrap_or_default(), object))
        && expressions.iter().all(|expression| selects(expression, object))
}

fn in_scope(scope: &str, pod: &Value) -> bool {
    let bounded = has(&pod["spec"], "activeDeadlineSeconds");
    match scope {
        "Terminating" => bounded,
        "NotTerminating" => !bounded,
        "BestEffort" => pod::qos_class(pod) == "BestEffort",
        "NotBestEffort" => pod::qos_class(pod) != "BestEffort",
        "PriorityClass" => !text(&pod["spec"], "priorityClassName").is_empty(),
        "CrossNamespacePodAffinity" => crosses_namespaces(&pod["spec"]["affinity"]),
        _ => false,
    }
}

/// Whether a term of pod affinity looks into other namespaces.
fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| !array(term, "namespaces").is_empty() || has(term, "namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = array(&affinity[*kind], "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = array(&affinity[*kind], "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.map(|weighted| &weighted["podAffinityTerm"])).any(crosses)
    })
}

fn selects(expression: &Value, pod: &Value) -> bool {
    let scope = text(expression, "scopeName");
    let class = &pod["spec"]["priorityClassName"];
    let listed = || array(expression, "values").contains(class);
    match text(expression, "operator") {
        "Exists" => in_scope(scope, pod),
        "DoesNotExist" => !in_scope(scope, pod),
        "In" => scope == "PriorityClass" && listed(),
        "NotIn" => scope == "PriorityClass" && !listed(),
        _ => false,
    }
}

/// Why a quota does not let something more be used; nothing if it does. `more` is what is used in addition.
pub fn refusal(quota: &Value, used: &Resources, more: &Resources) -> Option<String> {
    let hard = hard(quota);
    let beyond: Vec<_> = more
        .iter()
        .filter_map(|(name, more)| {
            let (most, used) = (hard.get(name)?, used.get(name).copied().unwrap_or(Quantity::ZERO));
            (*more > Quantity::ZERO && used.plus(more) > *most).then_some((name, more, used, most))
        })
        .collect();
    if beyond.is_empty() {
        return None;
    }
    let list = |amount: &dyn Fn(usize) -> String| {
        let all: Vec<_> = beyond.iter().enumerate().map(|(at, (name, ..))| format!("{name}={}", amount(at))).collect();
        all.join(",")
    };
    Some(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        text(&quota["metadata"], "name"),
        list(&|at| beyond[at].1.to_string()),
        list(&|at| beyond[at].2.to_string()),
        list(&|at| beyond[at].3.to_string()),
    ))
}

/// What containers of a pod have to name because a quota limits it, in words; nothing if they do.
pub fn unnamed(quota: &Value, pod: &Value) -> Option<String> {
    let hard = hard(quota);
    let required: BTreeSet<&str> = REQUIRED.into_iter().filter(|name| hard.contains_key(*name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in array(&pod["spec"], "containers").iter().chain(array(&pod["spec"], "initContainers")) {
        let mut named = Resources::new();
        let part = |which| pod::container_resources(container, which);
        asked(&part("requests"), &part("limits"), &mut named);
        for name in required.iter().filter(|name| !named.contains_key(**name)) {
            missing.entry(name).or_default().insert(text(container, "name"));
        }
    }
    if missing.is_empty() {
        return None;
    }
    let each = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    };
    let words: Vec<String> = missing.iter().map(each).collect();
    Some(format!("failed quota: {}: must specify {}", text(&quota["metadata"], "name"), words.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    fn resource(plural: &str) -> &'static Resource {
        builtin().iter().find(|resource| resource.plural == plural).expect("a built-in")
    }

    fn shown(usage: &Resources) -> String {
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn objects_count_under_all_their_names() {
        let rows = [
            ("deployments", json!({}), "count/deployments.apps=1"),
            ("configmaps", json!({}), "configmaps=1 count/configmaps=1"),
            (
                "services",
                json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
                "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
            ),
            (
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "s", "resources": {"requests": {"storage": "1Gi"}}}}),
                "count/persistentvolumeclaims=1 persistentvolumeclaims=1 requests.storage=1Gi \
                 s.storageclass.storage.k8s.io/persistentvolumeclaims=1 s.storageclass.storage.k8s.io/requests.storage=1Gi",
            ),
            (
                "pods",
                pod(json!({"requests": {"cpu": "100m", "x.y/z": "2"}, "limits": {"memory": "1Gi"}})),
                "count/pods=1 cpu=100m limits.memory=1Gi pods=1 requests.cpu=100m requests.x.y/z=2",
            ),
            ("pods", json!({"status": {"phase": "Failed"}}), "count/pods=1"),
        ];
        for (plural, object, want) in rows {
            assert_eq!(shown(&usage(resource(plural), &object)), want, "{plural} {object}");
        }
    }

    #[test]
    fn scopes_choose_pods() {
        let pods = resource("pods");
        let bounded = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}});
        let select = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        let rows = [
            (json!({}), true, true),
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort", "Terminating"]}), true, false),
            (json!({"scopes": ["NotBestEffort"]}), false, false),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, false),
            (select("In", json!(["high"])), true, false),
            (select("NotIn", json!(["high"])), false, true),
            (select("Exists", json!([])), true, false),
            (select("DoesNotExist", json!([])), false, true),
        ];
        for (spec, first, second) in rows {
            let quota = json!({"spec": spec});
            let seen = (covers(&quota, pods, &bounded), covers(&quota, pods, &json!({"spec": {}})));
            assert_eq!(seen, (first, second), "{quota}");
            assert_eq!(covers(&quota, resource("services"), &json!({})), spec == json!({}), "{quota}");
        }
    }

    #[test]
    fn refusals_name_what_is_exceeded() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "cpu": "1", "memory": "1Gi"}}});
        let used = amounts(&json!({"used": {"pods": "2", "cpu": "500m", "memory": "1Gi"}}), "used");
        let more = |amounts: &[(&str, &str)]| -> Resources {
            amounts.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
        };
        let refused = refusal(&quota, &used, &more(&[("pods", "1"), ("cpu", "600m"), ("memory", "0"), ("other", "9")]));
        let want = "exceeded quota: q, requested: cpu=600m,pods=1, used: cpu=500m,pods=2, limited: cpu=1,pods=2";
        assert_eq!(refused.as_deref(), Some(want));
        assert_eq!(refusal(&quota, &used, &more(&[("cpu", "500m"), ("memory", "-1Gi")])), None);
        let want = "failed quota: q: must specify cpu for: c; memory for: c";
        assert_eq!(unnamed(&quota, &pod(json!({}))).as_deref(), Some(want));
        assert_eq!(unnamed(&quota, &pod(json!({"requests": {"cpu": "1", "memory": "1"}}))), None);
    }

    #[test]
    fn usage_is_known_only_of_what_is_allowed_now() {
        let quota =
            |hard: Value| json!({"spec": {"hard": hard}, "status": {"hard": {"pods": "2"}, "used": {"pods": "1"}}});
        assert_eq!(used(&quota(json!({"pods": "2"}))).map(|used| shown(&used)).as_deref(), Some("pods=1"));
        assert_eq!(used(&quota(json!({"pods": "3"}))), None);
        assert_eq!(used(&json!({"spec": {"hard": {"pods": "2"}}})), None);
    }
}
