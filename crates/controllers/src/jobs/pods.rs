//! The pods a Job is made of.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};
use kube::ResourceExt;

use crate::{
    jobs::decide::{FAILURES, INDEX, TRACKING},
    pods::{from_template, owned_by},
};

/// Longest prefix of a generated name.
const PREFIX_LIMIT: usize = 57;

/// Labels every pod of the Job has.
pub(super) fn labels(job: &Job) -> BTreeMap<String, String> {
    let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
    [
        ("batch.kubernetes.io/job-name", name.clone()),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid.clone()),
        ("controller-uid", uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A pod of the Job, for one index if it is indexed, and how often that failed if the Job counts it.
pub(super) fn pod(job: &Job, index: Option<u32>, failures: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let name = job.name_any();
    let mut prefix = index.map_or_else(|| name.clone(), |index| format!("{name}-{index}"));
    prefix.truncate(PREFIX_LIMIT);
    let mut pod = from_template(&template, &job.namespace().unwrap_or_default(), &prefix, owned_by(job));
    pod.metadata.labels.get_or_insert_default().extend(labels(job));
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.into());
    if let Some(index) = index {
        give_index(&mut pod, &name, index);
    }
    let counts = job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some());
    if counts {
        let failures = failures.unwrap_or(0).to_string();
        pod.metadata.annotations.get_or_insert_default().insert(FAILURES.into(), failures);
    }
    pod
}

fn give_index(pod: &mut Pod, job: &str, index: u32) {
    let text = index.to_string();
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), text.clone());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), text);
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname = Some(format!("{job}-{index}"));
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
            continue;
        }
        let field = ObjectFieldSelector { field_path: format!("metadata.annotations['{INDEX}']"), api_version: None };
        env.push(EnvVar {
            name: "JOB_COMPLETION_INDEX".into(),
            value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
            ..EnvVar::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn pods_are_tracked_labelled_and_indexed() {
        let job: Job = object(json!({"metadata": {"name": "j", "namespace": "x", "uid": "u"}, "spec": {
            "template": {"spec": {"containers": [{"name": "c"}]}}}}));
        let plain = pod(&job, None, None);
        assert_eq!(plain.metadata.generate_name.as_deref(), Some("j-"));
        assert_eq!(plain.labels()["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(plain.finalizers(), [TRACKING]);
        let third = pod(&job, Some(3), None);
        assert_eq!(third.metadata.generate_name.as_deref(), Some("j-3-"));
        assert_eq!(third.annotations()[INDEX], "3");
        let spec = third.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("j-3"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    }
}
