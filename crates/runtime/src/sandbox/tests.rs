//! A sandbox without a machine: everything above the agent, against an agent in
//! this process.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use osc_agent_protocol::{
    Kind,
    agent::{
        CreateContainerRequest, ExecProcessRequest, GetOOMEventRequest, OOMEvent, RemoveContainerRequest,
        SignalProcessRequest, StartContainerRequest, WaitProcessRequest, WaitProcessResponse,
    },
    agent_ttrpc::{AgentService, create_agent_service},
    kind::chain,
};
use protobuf::well_known_types::empty::Empty;
use tokio::{net::UnixStream, sync::watch};
use ttrpc::asynchronous::{Server, TtrpcContext, transport::Socket};

use super::{agent::Limits, *};
use crate::{
    config::{Host, Mib},
    id::ExecId,
};

/// An agent whose processes end when told, or by any signal.
#[derive(Clone, Default)]
struct FakeAgent {
    ends: Arc<Mutex<HashMap<String, watch::Sender<Option<i32>>>>>,
    removed: Arc<AtomicU32>,
    oom: watch::Sender<Option<String>>,
}

impl FakeAgent {
    fn end_of(&self, exec: &str) -> watch::Sender<Option<i32>> {
        self.ends.lock().unwrap().entry(exec.to_owned()).or_default().clone()
    }

    fn end(&self, exec: &str, status: i32) {
        self.end_of(exec).send_replace(Some(status));
    }
}

#[async_trait]
impl AgentService for FakeAgent {
    async fn create_container(&self, _: &TtrpcContext, request: CreateContainerRequest) -> ttrpc::Result<Empty> {
        assert_eq!(
            request.OCI.Root.Path,
            format!("/run/kata-containers/shared/containers/{}/rootfs", request.container_id)
        );
        Ok(Empty::new())
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> ttrpc::Result<Empty> {
        if request.container_id == "broken" {
            return Err(osc_agent_protocol::kind::status(
                Kind::NotFound,
                "exec: \"x\": executable file not found in $PATH",
            ));
        }
        Ok(Empty::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }

    async fn wait_process(&self, _: &TtrpcContext, request: WaitProcessRequest) -> ttrpc::Result<WaitProcessResponse> {
        let mut end = self.end_of(&request.exec_id).subscribe();
        let status = end.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(WaitProcessResponse { status, ..Default::default() })
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        let exec = if request.exec_id.is_empty() { &request.container_id } else { &request.exec_id };
        self.end(exec, 128 + request.signal as i32);
        Ok(Empty::new())
    }

    async fn remove_container(&self, _: &TtrpcContext, _: RemoveContainerRequest) -> ttrpc::Result<Empty> {
        self.removed.fetch_add(1, Ordering::Relaxed);
        Ok(Empty::new())
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        let mut oom = self.oom.subscribe();
        let container_id = oom.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        drop(oom);
        self.oom.send_replace(None);
        Ok(OOMEvent { container_id, ..Default::default() })
    }
}

struct Fixture {
    sandbox: Sandbox,
    agent: FakeAgent,
    server: Server,
    root: tempfile::TempDir,
}

/// A running sandbox, supervised by its owner.
async fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let dirs = Dirs::new(root.path());
    let socket = root.path().join("agent.sock");
    let agent = FakeAgent::default();
    let services = create_agent_service(Arc::new(agent.clone()));
    let mut server = Server::new().bind(&format!("unix://{}", socket.display())).unwrap().register_service(services);
    server.start().await.unwrap();

    let host = Host { cpus: 2, memory: Mib(4096), guest: "/guest".into() };
    let request = Request {
        config: Arc::new(Config::for_host("", host).unwrap()),
        id: SandboxId::new("s1").unwrap(),
        kind: PodKind::Single,
        bundle: root.path().to_owned(),
        spec: spec(),
        names: Names::default(),
        durations: Arc::default(),
        maker: None,
        dirs,
    };
    let (record, share) = owner::prepare(&request).await.unwrap();
    let (shared, mut owner) = Shared::new(request, record, share);
    let second = Duration::from_secs(1);
    let limits = Limits { request: second, create: second, health: second };
    let stream = UnixStream::connect(&socket).await.unwrap();
    owner.announce(Agent::new(Socket::new(stream), limits, Arc::default()), 4711);
    tokio::spawn(async move {
        let cause = owner.supervise().await;
        owner.finish(cause).await;
    });
    Fixture { sandbox: Sandbox { shared }, agent, server, root }
}

fn spec() -> Arc<Spec> {
    let text = r#"{"ociVersion": "1.0.2", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["true"]},
        "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "network"}]}}"#;
    Arc::new(serde_json::from_str(text).unwrap())
}

async fn create(fixture: &Fixture, id: &str) -> ProcessId {
    let id = ContainerId::new(id).unwrap();
    let rootfs = fixture.root.path().join(format!("rootfs-{id}"));
    fs::create_dir(&rootfs).unwrap();
    let bundle = fixture.root.path().to_owned();
    let new = NewContainer { id: id.clone(), kind: PodKind::Single, bundle, rootfs, spec: spec() };
    fixture.sandbox.create_container(new).await.unwrap();
    ProcessId::init(id)
}

fn exec_of(init: &ProcessId, exec: &str) -> ProcessId {
    ProcessId { exec: Some(ExecId::new(exec).unwrap()), ..init.clone() }
}

fn is_gone(root: &Path) -> bool {
    !root.join("run/kata/s1").exists() && !root.join("run/kata-containers/shared/sandboxes/s1").exists()
}

#[tokio::test]
async fn a_container_lives_and_leaves() {
    let fixture = fixture().await;
    let (sandbox, init) = (&fixture.sandbox, create(&fixture, "c1").await);
    assert_eq!(sandbox.process_state(&init).unwrap(), ProcessState::Created);
    sandbox.start_process(&init).await.unwrap();
    assert_eq!(sandbox.start_process(&init).await.unwrap_err().kind(), Kind::Busy);
    assert_eq!(sandbox.delete_container(&init.container, false).await.unwrap_err().kind(), Kind::Busy);

    let exec = exec_of(&init, "e1");
    sandbox.add_exec(&exec, Default::default()).unwrap();
    assert_eq!(sandbox.add_exec(&exec, Default::default()).unwrap_err().kind(), Kind::Busy);
    sandbox.start_process(&exec).await.unwrap();
    fixture.agent.end("e1", 3);
    assert_eq!(sandbox.wait(&exec).await.unwrap().status, 3);
    sandbox.delete_exec(&exec).unwrap();
    assert_eq!(sandbox.process_state(&exec).unwrap_err().kind(), Kind::NotFound);

    fixture.agent.end("c1", 7);
    assert_eq!(sandbox.wait(&init).await.unwrap().status, 7);
    sandbox.delete_container(&init.container, false).await.unwrap();
    assert_eq!(fixture.agent.removed.load(Ordering::Relaxed), 1);
    assert_eq!(sandbox.wait(&init).await.unwrap_err().kind(), Kind::NotFound);
    sandbox.stop().await;
    assert!(is_gone(fixture.root.path()));
}

#[tokio::test]
async fn signals_find_processes_in_every_state() {
    let fixture = fixture().await;
    let (sandbox, init) = (&fixture.sandbox, create(&fixture, "c1").await);
    sandbox.start_process(&init).await.unwrap();
    let exec = exec_of(&init, "e1");
    sandbox.add_exec(&exec, Default::default()).unwrap();
    sandbox.signal(&exec, 9).await.unwrap();
    assert_eq!(sandbox.wait(&exec).await.unwrap().status, 137, "a process that was never started");
    sandbox.signal(&init, 15).await.unwrap();
    assert_eq!(sandbox.wait(&init).await.unwrap().status, 143);
    for signal in [9, 15] {
        sandbox.signal(&init, signal).await.unwrap();
    }
    assert_eq!(sandbox.signal(&init, 10).await.unwrap_err().kind(), Kind::NotFound);

    let created = create(&fixture, "c2").await;
    sandbox.signal(&created, 9).await.unwrap();
    assert_eq!(sandbox.wait(&created).await.unwrap().status, 137, "a container that was never started");
    sandbox.stop().await;
}

#[tokio::test]
async fn the_guests_words_reach_the_caller() {
    let fixture = fixture().await;
    let init = create(&fixture, "broken").await;
    let error = fixture.sandbox.start_process(&init).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(chain(&error).ends_with("exec: \"x\": executable file not found in $PATH"), "{}", chain(&error));
    assert_eq!(fixture.sandbox.process_state(&init).unwrap(), ProcessState::Created);
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn when_the_agent_goes_everything_ends_at_once() {
    let mut fixture = fixture().await;
    let init = create(&fixture, "c1").await;
    fixture.sandbox.start_process(&init).await.unwrap();
    let exec = exec_of(&init, "e1");
    fixture.sandbox.add_exec(&exec, Default::default()).unwrap();
    fixture.sandbox.start_process(&exec).await.unwrap();
    fixture.server.shutdown().await.unwrap();
    let cause = fixture.sandbox.stopped().await;
    assert!(matches!(*cause, Cause::AgentLost(_)), "{cause}");
    for id in [&init, &exec] {
        assert_eq!(fixture.sandbox.wait(id).await.unwrap().status, 255);
    }
    assert!(is_gone(fixture.root.path()));
    // What is left to do with the dead still works, and new work is refused.
    let error = fixture.sandbox.stats(&init.container).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().starts_with("sandbox s1 has ended: its agent was lost"), "{error}");
    fixture.sandbox.signal(&init, 9).await.unwrap();
    fixture.sandbox.delete_exec(&exec).unwrap();
    fixture.sandbox.delete_container(&init.container, false).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_processes_as_killed() {
    let fixture = fixture().await;
    let init = create(&fixture, "c1").await;
    fixture.sandbox.start_process(&init).await.unwrap();
    let cause = fixture.sandbox.stop().await;
    assert!(matches!(*cause, Cause::Requested));
    assert_eq!(fixture.sandbox.wait(&init).await.unwrap().status, 137);
    assert!(is_gone(fixture.root.path()));
    fixture.sandbox.stop().await;
}

#[tokio::test]
async fn memory_limit_events_arrive_until_the_end() {
    let fixture = fixture().await;
    let init = create(&fixture, "c1").await;
    fixture.agent.oom.send_replace(Some("c1".into()));
    assert_eq!(fixture.sandbox.next_oom().await, Some(init.container.clone()));
    fixture.sandbox.stop().await;
    assert_eq!(fixture.sandbox.next_oom().await, None);
}
