//! Security contexts: the container's values win over the pod's.

use k8s_openapi::api::core::v1 as core;

use super::id;
use crate::pod::{model::Security, problem::Problems};

pub(super) fn merge(
    path: &str,
    given: Option<&core::SecurityContext>,
    pod: &core::PodSecurityContext,
    problems: &mut Problems,
) -> Security {
    let path = format!("{path}.securityContext");
    let given = given.cloned().unwrap_or_default();
    let privileged = given.privileged.unwrap_or(false);
    let escalation = given.allow_privilege_escalation;
    if privileged && escalation == Some(false) {
        problems.add(format!("{path}.allowPrivilegeEscalation"), "a privileged container cannot be without it");
    }
    let user = given.run_as_user.or(pod.run_as_user);
    let non_root = given.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    id(&format!("{path}.runAsUser"), user, problems);
    id(&format!("{path}.runAsGroup"), given.run_as_group.or(pod.run_as_group), problems);
    problems.unless(!(non_root && user == Some(0)), format!("{path}.runAsUser"), "0 contradicts runAsNonRoot");
    let capabilities = given.capabilities.unwrap_or_default();
    let profile = given.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str());
    let profiles = [("RuntimeDefault", true), ("Unconfined", false)];
    let profile_path = format!("{path}.seccompProfile.type");
    Security {
        user,
        group: given.run_as_group.or(pod.run_as_group),
        non_root,
        privileged,
        read_only_root: given.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: escalation == Some(false),
        add: names(&format!("{path}.capabilities.add"), capabilities.add, problems),
        drop: names(&format!("{path}.capabilities.drop"), capabilities.drop, problems),
        // As in Kubernetes, no profile means no filter.
        seccomp: profile.and_then(|name| problems.choice(&profile_path, name, &profiles)).unwrap_or(false),
    }
}

/// Capabilities without the prefix the kernel's headers have.
fn names(path: &str, given: Option<Vec<String>>, problems: &mut Problems) -> Vec<String> {
    let mut names = Vec::new();
    for name in given.unwrap_or_default() {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        let good = !short.is_empty() && short.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        problems.unless(good, path, format!("{name:?} is not a capability"));
        names.push(short);
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn merged(container: Value, pod: Value) -> (Security, usize) {
        let mut problems = Problems::default();
        let container = serde_json::from_value(container).expect("context");
        let pod = serde_json::from_value(pod).expect("context");
        (merge("c", Some(&container), &pod, &mut problems), problems.found.len())
    }

    #[test]
    fn the_container_wins() {
        let (security, problems) = merged(json!({"runAsUser": 5}), json!({"runAsUser": 7, "runAsGroup": 8}));
        assert_eq!((security.user, security.group, problems), (Some(5), Some(8), 0));
        let (security, _) = merged(json!({"capabilities": {"drop": ["all"], "add": ["CAP_NET_ADMIN"]}}), json!({}));
        assert_eq!((security.drop, security.add), (vec!["ALL".into()], vec!["NET_ADMIN".into()]));
    }

    #[test]
    fn contradictions_are_problems() {
        for (container, pod) in [
            (json!({"privileged": true, "allowPrivilegeEscalation": false}), json!({})),
            (json!({"runAsUser": 0}), json!({"runAsNonRoot": true})),
            (json!({"runAsUser": -1}), json!({})),
            (json!({"seccompProfile": {"type": "Localhost"}}), json!({})),
            (json!({"capabilities": {"add": ["net admin"]}}), json!({})),
        ] {
            assert_eq!(merged(container.clone(), pod).1, 1, "{container}");
        }
    }
}
