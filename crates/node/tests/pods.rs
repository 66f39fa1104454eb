//! Real pods with runc, in a real containerd.

mod common;

use std::{path::Path, time::Duration};

use common::{Node, manifest};
use osc_node::{
    cri::messages::ExecRequest,
    logs::{Sink, copy},
    pod::{Event, Goal, Manifest, Phase, PodError, Pods},
    stream::{self, Ends},
};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a pod to its end; its phase and what each container wrote.
async fn run(pods: &Pods, manifest: &Manifest) -> (Phase, String, String) {
    let (record, hold) = pods.admit(manifest, "runc").await.expect("admit");
    let mut supervisor = pods.supervisor(&record).expect("supervisor");
    let mut logs = Vec::new();
    let mut tell = |event: Event| {
        if let Event::Starting { log, .. } = event {
            logs.push(log);
        }
    };
    let phase = tokio::time::timeout(LIMIT, supervisor.run(Goal::Done, &mut tell)).await.expect("ends").expect("runs");
    let mut sink = Sink::new(Vec::new(), Vec::new(), "");
    for log in &logs {
        copy(log, &mut sink).await.expect("log");
    }
    pods.delete(&record, hold).await.expect("delete");
    assert!(!pods.place(&record).dir.exists() && !pods.place(&record).logs.exists());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (phase.expect("over"), text(sink.stdout), text(sink.stderr))
}

const EVERYTHING: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: everything, labels: {app: x}}
spec:
  restartPolicy: Never
  hostname: inside
  securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 2000, runAsNonRoot: true}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, "echo from-init > /shared/file"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c]
    args:
    - |
      cat /shared/file; id -u; id -G; hostname; echo $(NAME) '$$(X)'
      grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status
      touch /root-is-read-only && echo writable
      touch /shared/mine; stat -c %g /shared/mine
      touch /again/mine && echo writable
      head -c 2000000 /dev/zero > /memory/big; stat -c %s /memory/big
      cat /etc/hosts | grep -c inside
      echo to-stderr >&2
      exit 7
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: shared, mountPath: /again, readOnly: true, subPath: sub/path}
    - {name: memory, mountPath: /memory}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_all_it_asked_for() {
    let node = Node::start().await;
    let (phase, out, err) = run(&node.pods, &manifest(EVERYTHING)).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "from-init",
            "1000",
            "1001 2000",
            "inside",
            "everything $(X)",
            "NoNewPrivs:\t1",
            "CapBnd:\t0000000000000000",
            "2000",
            "1048576",
            "2", // one line for each address family
        ],
        "{out}{err}"
    );
    assert!(err.lines().any(|line| line == "to-stderr"), "{err}");
    assert_eq!(phase, Phase::Failed);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_restart_containers_until_they_succeed() {
    let node = Node::start().await;
    let text = r#"
apiVersion: v1
kind: Pod
metadata: {name: restarts}
spec:
  restartPolicy: OnFailure
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, "echo run; if [ -e /v/seen ]; then exit 0; fi; touch /v/seen; exit 1"]
    volumeMounts: [{name: v, mountPath: /v}]
"#;
    let (phase, out, _) = run(&node.pods, &manifest(text)).await;
    assert_eq!((phase, out.as_str()), (Phase::Succeeded, "run\nrun\n"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_and_leaves_nothing() {
    let node = Node::start().await;
    let pod = |spec: &str| manifest(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}"));
    let never = pod("{containers: [{name: c, image: localhost/nothing, imagePullPolicy: Never}]}");
    assert!(matches!(node.pods.admit(&never, "runc").await, Err(PodError::Image { source: None, .. })));
    let root = pod("{containers: [{name: c, image: IMAGE, securityContext: {runAsNonRoot: true}}]}");
    assert!(matches!(node.pods.admit(&root, "runc").await, Err(PodError::Root { .. })));
    let network = pod("{hostNetwork: true, containers: [{name: c, image: IMAGE}]}");
    assert!(matches!(node.pods.admit(&network, "kata").await, Err(PodError::Handler { .. })));
    assert!(node.pods.store().list().is_empty());

    let missing = pod("{restartPolicy: Never, containers: [{name: c, image: IMAGE, command: [/no/such/program]}]}");
    let (record, hold) = node.pods.admit(&missing, "runc").await.expect("admit");
    assert!(matches!(node.pods.admit(&missing, "runc").await, Err(PodError::Exists { differs: false, .. })));
    let mut supervisor = node.pods.supervisor(&record).expect("supervisor");
    let failed = supervisor.run(Goal::Done, &mut |_| ()).await;
    assert!(matches!(failed, Err(PodError::Start { .. })), "{failed:?}");
    node.pods.delete(&record, hold).await.expect("delete");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_input_output_and_exit_code() {
    let node = Node::start().await;
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 0, \
                containers: [{name: c, image: IMAGE, command: [sleep, '1000']}]}}";
    let (record, hold) = node.pods.admit(&manifest(text), "runc").await.expect("admit");
    let mut supervisor = node.pods.supervisor(&record).expect("supervisor");
    supervisor.run(Goal::Started, &mut |_| ()).await.expect("start");
    let summary = node.pods.summary(&record).await.expect("summary");
    assert_eq!((summary.status, summary.ready), ("Running", (1, 1)));
    assert_eq!(summary.addresses.len(), 2, "one of each family");

    // More than any buffer on the way holds, ended by an end of input.
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let request = ExecRequest {
        container_id: summary.containers["c"].id.clone(),
        cmd: ["sh", "-c", "cat; echo err >&2; exit 7"].map(String::from).to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = node.pods.client().exec(request).await.expect("exec");
    let (stdin, pieces) = mpsc::channel(4);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ends = Ends { stdin: Some(pieces), stdout: Some(&mut out), stderr: Some(&mut err), resize: None };
    let feed = async {
        for piece in big.chunks(50_000) {
            stdin.send(piece.to_vec()).await.expect("send");
        }
        drop(stdin);
    };
    let (code, ()) =
        tokio::time::timeout(LIMIT, async { tokio::join!(stream::run(&url, ends), feed) }).await.expect("ends");
    assert_eq!(code.expect("status"), 7);
    assert!(out == big, "{} of {} bytes", out.len(), big.len());
    assert_eq!(err, b"err\n");

    node.pods.delete(&record, hold).await.expect("delete");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_pod_is_taken_over_and_a_killed_engine_is_no_obstacle() {
    let node = Node::start().await;
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 0, \
                containers: [{name: c, image: IMAGE, command: [sleep, '1001']}]}}";
    let (record, hold) = node.pods.admit(&manifest(text), "runc").await.expect("admit");
    let mut supervisor = node.pods.supervisor(&record).expect("supervisor");
    supervisor.run(Goal::Started, &mut |_| ()).await.expect("start");
    drop((hold, supervisor)); // as if this process had been killed

    let pid = std::fs::read_to_string(node.engine.paths().pid_file()).expect("pid");
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    let left = node.pods.place(&record);
    assert!(left.dir.exists());
    // Nobody asks the engine any more: the sweep alone must clean up.
    let container = Path::new("/proc").join(container_pid()).join("cmdline");
    node.stop().await;
    // A zombie, which only init may reap, has no arguments any more.
    assert_eq!(std::fs::read(container).unwrap_or_default(), b"", "the container still runs");
}

/// Process id of the one `sleep 1001` that is not in our own process namespace.
fn container_pid() -> String {
    let ours = std::fs::read_link("/proc/self/ns/pid").expect("namespace");
    std::fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .find(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x001001\0")
                && std::fs::read_link(entry.path().join("ns/pid")).is_ok_and(|ns| ns != ours)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .expect("a container")
}
