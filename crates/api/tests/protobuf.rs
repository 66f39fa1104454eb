//! Bodies encoded by an independent implementation of the Kubernetes messages.

use std::collections::BTreeMap;

use k8s_pb::{
    api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core, policy::v1 as policy, rbac::v1 as rbac},
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1 as meta, runtime::RawExtension, util::intstr::IntOrString,
    },
};
use osc_api::protobuf;
use prost::Message;
use serde_json::{Value, json};

/// A length-delimited field.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    prost::encode_length_delimiter(bytes.len(), out).expect("a Vec grows");
    out.extend(bytes);
}

fn body(api_version: &str, kind: &str, object: &impl Message) -> Vec<u8> {
    let (mut type_meta, mut body) = (Vec::new(), protobuf::MAGIC.to_vec());
    field(1, api_version.as_bytes(), &mut type_meta);
    field(2, kind.as_bytes(), &mut type_meta);
    field(1, &type_meta, &mut body);
    field(2, &object.encode_to_vec(), &mut body);
    field(3, b"", &mut body);
    field(4, b"", &mut body);
    body
}

fn decoded(api_version: &str, kind: &str, object: &impl Message) -> Value {
    protobuf::decode(&body(api_version, kind, object)).expect("a good body")
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Metadata as Go clients send it: with every string and the times nobody set.
fn metadata(name: &str) -> Option<meta::ObjectMeta> {
    Some(meta::ObjectMeta {
        name: some(name),
        generate_name: some(""),
        namespace: some(""),
        self_link: some(""),
        uid: some(""),
        resource_version: some(""),
        generation: Some(0),
        creation_timestamp: Some(meta::Time::default()),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())]),
        ..Default::default()
    })
}

fn number(value: i32) -> Option<IntOrString> {
    Some(IntOrString { r#type: Some(0), int_val: Some(value), str_val: some("") })
}

fn template() -> core::PodTemplateSpec {
    let secret = core::SecretKeySelector {
        local_object_reference: Some(core::LocalObjectReference { name: some("s") }),
        key: some("k"),
        optional: Some(false),
    };
    let container = core::Container {
        name: some("main"),
        image: some("busybox"),
        image_pull_policy: some(""),
        command: vec!["sh".to_owned(), "-c".to_owned()],
        env: vec![
            core::EnvVar { name: some("A"), value: some("b"), value_from: None },
            core::EnvVar {
                name: some("S"),
                value: some(""),
                value_from: Some(core::EnvVarSource { secret_key_ref: Some(secret), ..Default::default() }),
            },
        ],
        ports: vec![core::ContainerPort {
            container_port: Some(80),
            host_port: Some(0),
            protocol: some("TCP"),
            ..Default::default()
        }],
        resources: Some(core::ResourceRequirements {
            limits: BTreeMap::from([("memory".to_owned(), Quantity { string: some("1Gi") })]),
            ..Default::default()
        }),
        liveness_probe: Some(core::Probe {
            handler: Some(core::ProbeHandler {
                http_get: Some(core::HttpGetAction { path: some("/"), port: number(80), ..Default::default() }),
                ..Default::default()
            }),
            period_seconds: Some(5),
            ..Default::default()
        }),
        tty: Some(false),
        security_context: Some(core::SecurityContext {
            privileged: Some(false),
            run_as_user: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let debug = core::EphemeralContainer {
        ephemeral_container_common: Some(core::EphemeralContainerCommon { name: some("debug"), ..Default::default() }),
        target_container_name: some("main"),
    };
    let volume = |name: &str, source| core::Volume { name: some(name), volume_source: Some(source) };
    let config = core::ConfigMapVolumeSource {
        local_object_reference: Some(core::LocalObjectReference { name: some("c") }),
        default_mode: Some(0o400),
        ..Default::default()
    };
    core::PodTemplateSpec {
        metadata: metadata(""),
        spec: Some(core::PodSpec {
            containers: vec![container],
            ephemeral_containers: vec![debug],
            volumes: vec![
                volume("c", core::VolumeSource { config_map: Some(config), ..Default::default() }),
                volume(
                    "e",
                    core::VolumeSource { empty_dir: Some(core::EmptyDirVolumeSource::default()), ..Default::default() },
                ),
            ],
            restart_policy: some("Always"),
            host_network: Some(false),
            automount_service_account_token: Some(false),
            ..Default::default()
        }),
    }
}

#[test]
fn a_deployment_is_read_as_json_would_be() {
    let deployment = apps::Deployment {
        metadata: metadata("web"),
        spec: Some(apps::DeploymentSpec {
            replicas: Some(0),
            selector: Some(meta::LabelSelector {
                match_labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
                ..Default::default()
            }),
            template: Some(template()),
            strategy: Some(apps::DeploymentStrategy::default()),
            min_ready_seconds: Some(0),
            ..Default::default()
        }),
        status: Some(apps::DeploymentStatus::default()),
    };
    let labels = json!({"app": "web", "empty": ""});
    let want = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "main",
                        "image": "busybox",
                        "command": ["sh", "-c"],
                        "env": [
                            {"name": "A", "value": "b"},
                            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}},
                        ],
                        "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "resources": {"limits": {"memory": "1Gi"}},
                        "securityContext": {"privileged": false, "runAsUser": 0},
                    }],
                    "ephemeralContainers": [{"name": "debug", "targetContainerName": "main"}],
                    "restartPolicy": "Always",
                    "volumes": [
                        {"name": "c", "configMap": {"name": "c", "defaultMode": 256}},
                        {"name": "e", "emptyDir": {}},
                    ],
                },
            },
        },
        "status": {},
    });
    assert_eq!(decoded("apps/v1", "Deployment", &deployment), want);
}

#[test]
fn bytes_numbers_and_times_have_their_json_form() {
    let secret = core::Secret {
        metadata: metadata("s"),
        data: BTreeMap::from([("a".to_owned(), b"x".to_vec()), ("b".to_owned(), Vec::new())]),
        r#type: some("Opaque"),
        immutable: Some(false),
        ..Default::default()
    };
    let value = decoded("v1", "Secret", &secret);
    assert_eq!((&value["data"], &value["immutable"]), (&json!({"a": "eA==", "b": ""}), &json!(false)));

    let service = core::Service {
        spec: Some(core::ServiceSpec {
            ports: vec![core::ServicePort {
                port: Some(80),
                target_port: Some(IntOrString { r#type: Some(1), int_val: Some(0), str_val: some("http") }),
                node_port: Some(0),
                ..Default::default()
            }],
            cluster_ip: some(""),
            r#type: some("ClusterIP"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let value = decoded("v1", "Service", &service);
    assert_eq!(value["spec"], json!({"type": "ClusterIP", "ports": [{"port": 80, "targetPort": "http"}]}));

    let time = meta::Time { seconds: Some(1_767_225_600), nanos: Some(5) };
    let job = batch::Job {
        status: Some(batch::JobStatus { start_time: Some(time), failed: Some(-1), ..Default::default() }),
        ..Default::default()
    };
    let value = decoded("batch/v1", "Job", &job);
    assert_eq!(
        (&value["status"]["startTime"], &value["status"]["failed"]),
        (&json!("2026-01-01T00:00:00Z"), &json!(-1))
    );

    let micro = meta::MicroTime { seconds: Some(1_767_225_600), nanos: Some(5000) };
    let event =
        core::Event { event_time: Some(micro), last_timestamp: Some(meta::Time::default()), ..Default::default() };
    let value = decoded("v1", "Event", &event);
    assert_eq!(value["eventTime"], "2026-01-01T00:00:00.000005Z");
    assert!(value.get("lastTimestamp").is_none());

    let revision = apps::ControllerRevision {
        data: Some(RawExtension { raw: Some(br#"{"spec":{"x":[1]}}"#.to_vec()) }),
        revision: Some(7),
        ..Default::default()
    };
    let value = decoded("apps/v1", "ControllerRevision", &revision);
    assert_eq!((&value["data"], &value["revision"]), (&json!({"spec": {"x": [1]}}), &json!(7)));
}

#[test]
fn what_kubectl_posts_besides_objects_is_read() {
    let options = meta::DeleteOptions {
        grace_period_seconds: Some(0),
        propagation_policy: some("Background"),
        preconditions: Some(meta::Preconditions { uid: some("u"), ..Default::default() }),
        ..Default::default()
    };
    let want = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
    });
    assert_eq!(decoded("v1", "DeleteOptions", &options), want);

    let eviction = policy::Eviction { metadata: metadata("p"), delete_options: Some(options) };
    for api_version in ["policy/v1", "policy/v1beta1"] {
        let value = decoded(api_version, "Eviction", &eviction);
        assert_eq!(
            (&value["metadata"]["name"], &value["deleteOptions"]["gracePeriodSeconds"]),
            (&json!("p"), &json!(0))
        );
    }

    let role = rbac::Role {
        rules: vec![rbac::PolicyRule {
            verbs: vec!["get".to_owned()],
            api_groups: vec![String::new()],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        decoded("rbac.authorization.k8s.io/v1", "Role", &role)["rules"],
        json!([{"verbs": ["get"], "apiGroups": [""]}])
    );

    let review = k8s_pb::api::authorization::v1::SubjectAccessReview {
        spec: Some(k8s_pb::api::authorization::v1::SubjectAccessReviewSpec {
            user: some("u"),
            extra: BTreeMap::from([(
                "k".to_owned(),
                k8s_pb::api::authorization::v1::ExtraValue { items: vec!["a".to_owned(), "b".to_owned()] },
            )]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let value = decoded("authorization.k8s.io/v1", "SubjectAccessReview", &review);
    assert_eq!(value["spec"], json!({"user": "u", "extra": {"k": ["a", "b"]}}));

    let budget = policy::PodDisruptionBudget {
        spec: Some(policy::PodDisruptionBudgetSpec {
            min_available: Some(IntOrString { r#type: Some(1), int_val: Some(0), str_val: some("50%") }),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(decoded("policy/v1", "PodDisruptionBudget", &budget)["spec"], json!({"minAvailable": "50%"}));
}

#[test]
fn a_body_cut_anywhere_is_refused_or_shorter() {
    let deployment = apps::Deployment {
        spec: Some(apps::DeploymentSpec { template: Some(template()), ..Default::default() }),
        ..Default::default()
    };
    let whole = body("apps/v1", "Deployment", &deployment);
    for end in 0..whole.len() {
        let _ = protobuf::decode(&whole[..end]);
    }
    let mut flipped = whole.clone();
    for at in 0..whole.len() {
        for bit in 0..8 {
            flipped[at] ^= 1 << bit;
            let _ = protobuf::decode(&flipped);
            flipped[at] = whole[at];
        }
    }
}
