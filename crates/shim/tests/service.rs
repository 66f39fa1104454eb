//! The task service over its socket, as an engine calls it, without any sandbox.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, ConnectRequest, ConnectResponse, CreateTaskRequest, KillRequest, ShutdownRequest,
        StateRequest, WaitRequest,
    },
    protobuf::Message,
    shim_async::{Client, TaskClient},
};
use osc_runtime::dirs::Dirs;
use osc_shim::{
    events::Events,
    service::{Environment, Pod, services},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use ttrpc::{Code, asynchronous::Server, context};

struct Shim {
    client: Client,
    exit: CancellationToken,
    dir: TempDir,
    _server: Server,
}

async fn shim() -> Shim {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment {
        namespace: "test".into(),
        dirs: Dirs::new(dir.path()),
        config_file: None,
        silent: true,
        maker: None,
    };
    let exit = CancellationToken::new();
    let (events, _) = Events::start(None, "test");
    let pod = Pod::new(environment, events, exit.clone());
    let url = format!("unix://{}", dir.path().join("shim.sock").display());
    let mut server = Server::new().bind(&url).unwrap().register_service(services(&pod));
    server.start().await.unwrap();
    Shim { client: Client::connect(&url).await.unwrap(), exit, dir, _server: server }
}

fn code(outcome: ttrpc::Result<impl std::fmt::Debug>) -> (Code, String) {
    match outcome.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
        other => panic!("{other}"),
    }
}

fn limit() -> context::Context {
    context::with_duration(Duration::from_secs(10))
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let shim = shim().await;
    let tasks = TaskClient::new(shim.client.clone());
    let id = "nobody".to_owned();
    let state = tasks.state(limit(), &StateRequest { id: id.clone(), ..Default::default() }).await;
    assert_eq!(code(state).0, Code::NOT_FOUND);
    let kill = tasks.kill(limit(), &KillRequest { id: id.clone(), signal: 9, ..Default::default() }).await;
    assert_eq!(code(kill).0, Code::NOT_FOUND);
    let wait = tasks.wait(limit(), &WaitRequest { id, ..Default::default() }).await;
    assert_eq!(code(wait).0, Code::NOT_FOUND);
    let state = tasks.state(limit(), &StateRequest { id: "../x".into(), ..Default::default() }).await;
    assert_eq!(code(state).0, Code::INVALID_ARGUMENT);
    let checkpoint = tasks.checkpoint(limit(), &CheckpointTaskRequest::new()).await;
    assert_eq!(code(checkpoint).0, Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn both_versions_of_the_service_answer() {
    let shim = shim().await;
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let request = ttrpc::Request {
            service: service.into(),
            method: "Connect".into(),
            payload: ConnectRequest::new().write_to_bytes().unwrap(),
            timeout_nano: 10_000_000_000,
            ..Default::default()
        };
        let answer = shim.client.request(request).await.unwrap();
        let answer = ConnectResponse::parse_from_bytes(&answer.payload).unwrap();
        assert_eq!(answer.shim_pid, std::process::id(), "{service}");
    }
}

async fn create(shim: &Shim, spec: &str) -> (Code, String) {
    let bundle = shim.dir.path().join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), spec).unwrap();
    let bundle = bundle.display().to_string();
    let request = CreateTaskRequest { id: "c1".into(), bundle, ..Default::default() };
    code(TaskClient::new(shim.client.clone()).create(limit(), &request).await)
}

/// A specification with `annotations`, for which no machine can be started here.
fn spec(annotations: &str) -> String {
    format!(
        r#"{{"ociVersion": "1.0.2", "process": {{"cwd": "/", "user": {{"uid": 0, "gid": 0}}, "args": ["true"]}},
        "root": {{"path": "rootfs"}}, "annotations": {{{annotations}}},
        "linux": {{"namespaces": [{{"type": "network"}}]}}}}"#
    )
}

fn left(root: &Path) -> Vec<String> {
    ["run/kata", "run/kata-containers/shared/sandboxes"]
        .iter()
        .flat_map(|dir| fs::read_dir(root.join(dir)).into_iter().flatten().flatten())
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[tokio::test]
async fn a_creation_that_fails_says_why_and_leaves_nothing() {
    let shim = shim().await;
    let member = r#""io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s1""#;
    let rows = [
        ("{".to_owned(), Code::INVALID_ARGUMENT, "config.json does not follow the OCI Runtime Specification"),
        (spec(r#""io.kubernetes.cri.container-type": "pod""#), Code::INVALID_ARGUMENT, "must be \"sandbox\""),
        (spec(member), Code::NOT_FOUND, "the sandbox of this pod"),
        (spec(r#""io.katacontainers.config.hypervisor.path": "/x""#), Code::UNKNOWN, "enable_annotations"),
    ];
    for (spec, want, words) in rows {
        let (code, text) = create(&shim, &spec).await;
        assert_eq!(code, want, "{text}");
        assert!(text.contains(words), "no {words:?} in {text:?}");
        assert_eq!(left(shim.dir.path()), [""; 0]);
    }
}

#[tokio::test]
async fn an_empty_shim_ends_on_request() {
    let shim = shim().await;
    assert!(!shim.exit.is_cancelled());
    TaskClient::new(shim.client.clone()).shutdown(limit(), &ShutdownRequest::new()).await.unwrap();
    assert!(shim.exit.is_cancelled());
}

/// Processes that work in `bundle`, as serving shims do.
fn serving(bundle: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == bundle)).count()
}

#[test]
fn a_start_killed_at_any_moment_leaves_no_shim_and_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let mut traces = Vec::new();
    let mut served = 0;
    for delay in (0..40).map(|step| Duration::from_micros(step * 250)) {
        let id = format!("killed-{}-{}", std::process::id(), delay.as_micros());
        let bundle = dir.path().join(&id);
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("config.json"), spec("")).unwrap();
        let mut start = Command::new(env!("CARGO_BIN_EXE_containerd-shim-kata-v2"))
            .args(["-namespace", "test", "-address", "/test.sock", "-id", &id, "start"])
            .env("SANDBOXED_CONTAINERS_ROOT", dir.path())
            .current_dir(&bundle)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + delay;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        start.kill().unwrap();
        start.wait().unwrap();
        served += serving(&bundle);
        let socket = fs::read_to_string(bundle.join("address")).ok();
        traces.push((bundle, socket.map(|url| PathBuf::from(url.trim_start_matches("unix://")))));
    }
    assert!(served > 0, "no start got as far as a serving process");
    let by = Instant::now() + Duration::from_secs(60);
    let left = |(bundle, socket): &(PathBuf, Option<PathBuf>)| {
        serving(bundle) > 0 || socket.as_ref().is_some_and(|socket| socket.exists())
    };
    while traces.iter().any(left) {
        assert!(Instant::now() < by, "left: {:#?}", traces.iter().filter(|trace| left(trace)).collect::<Vec<_>>());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
