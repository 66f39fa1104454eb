//! The agent as a host runtime sees it: the real program, in namespaces of its
//! own, driven over its socket. Needs root, `unshare` and a static busybox, which
//! are on every machine the product is built on.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod guest;

use std::time::Duration;

use guest::{Guest, container, context, is_code, until};
use osc_agent_protocol::{
    agent::{
        CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest, ExecProcessRequest,
        GetMetricsRequest, GetOOMEventRequest, GuestDetailsRequest, MemAgentMemcgConfig, ReadStreamRequest,
        RemoveContainerRequest, ResizeVolumeRequest, SetPolicyRequest, SignalProcessRequest, StartContainerRequest,
        StatsContainerRequest, Storage, TtyWinResizeRequest, VolumeStatsRequest, WaitProcessRequest,
        WriteStreamRequest,
    },
    health::{CheckRequest, health_check_response::ServingStatus},
    oci,
};
use ttrpc::Code;

fn sandbox() -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: "pod".into(),
        hostname: "my-pod".into(),
        dns: vec!["nameserver 192.0.2.1".into()],
        storages: vec![Storage {
            driver: "ephemeral".into(),
            source: "shm".into(),
            fstype: "tmpfs".into(),
            options: vec!["noexec".into(), "size=1048576".into()],
            mount_point: "/run/kata-containers/sandbox/shm".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_pod_lives_and_ends() {
    let guest = Guest::start("life").await;
    let agent = guest.agent().await;
    let health = guest.health().await;
    let check = health.check(context(), &CheckRequest::new()).await.unwrap();
    assert_eq!(check.status.enum_value(), Ok(ServingStatus::SERVING));
    let version = health.version(context(), &CheckRequest::new()).await.unwrap();
    assert_eq!(version.agent_version, env!("CARGO_PKG_VERSION"));

    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    let details = agent.get_guest_details(context(), &GuestDetailsRequest::new()).await.unwrap();
    assert!(details.agent_details.storage_handlers.contains(&"virtio-fs".to_owned()));
    assert!(!details.agent_details.init_daemon);

    let script = "hostname; grep -c sandbox/shm /proc/self/mountinfo; cat /etc/words; echo oops >&2; exit 3";
    let mut request = container("c1", &["sh", "-c", script]);
    request.OCI.as_mut().unwrap().Mounts.push(oci::Mount {
        destination: "/etc/words".into(),
        source: "/run/kata-containers/shared/containers/c1-words".into(),
        type_: "bind".into(),
        options: vec!["rbind".into(), "ro".into()],
        ..Default::default()
    });
    let words = CopyFileRequest {
        path: "/run/kata-containers/shared/containers/c1-words".into(),
        file_mode: 0o100_644,
        dir_mode: 0o755,
        file_size: 5,
        data: b"from\n".to_vec(),
        ..Default::default()
    };
    agent.copy_file(context(), &words).await.unwrap();
    agent.create_container(context(), &request).await.unwrap();
    agent
        .start_container(context(), &StartContainerRequest { container_id: "c1".into(), ..Default::default() })
        .await
        .unwrap();
    let output = guest.output(&agent, "c1", "").await;
    let stderr = agent.read_stderr(context(), &read("c1", "")).await.unwrap().data;
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((output.as_str(), stderr.as_str()), ("my-pod\n0\nfrom\n", "oops\n"));
    assert_eq!(wait(&agent, "c1", "").await, 3);

    agent
        .remove_container(context(), &RemoveContainerRequest { container_id: "c1".into(), ..Default::default() })
        .await
        .unwrap();
    let gone = agent
        .stats_container(context(), &StatsContainerRequest { container_id: "c1".into(), ..Default::default() })
        .await;
    assert!(is_code(&gone, Code::NOT_FOUND), "{gone:?}");
    agent.destroy_sandbox(context(), &DestroySandboxRequest::new()).await.unwrap();
    assert!(guest.ended().await.success(), "an agent that has destroyed its sandbox leaves");
}

fn read(container: &str, exec: &str) -> ReadStreamRequest {
    ReadStreamRequest { container_id: container.into(), exec_id: exec.into(), len: 32 << 10, ..Default::default() }
}

async fn wait(agent: &guest::Agent, container: &str, exec: &str) -> i32 {
    let request = WaitProcessRequest { container_id: container.into(), exec_id: exec.into(), ..Default::default() };
    agent.wait_process(context(), &request).await.unwrap().status
}

/// What namespaces a process is in.
const IDENTITY: &str = "readlink /proc/1/ns/pid; readlink /proc/self/ns/ipc";

async fn run(agent: &guest::Agent, request: &CreateContainerRequest) {
    agent.create_container(context(), request).await.unwrap();
    let start = StartContainerRequest { container_id: request.container_id.clone(), ..Default::default() };
    agent.start_container(context(), &start).await.unwrap();
}

#[tokio::test]
async fn processes_share_and_stream() {
    let guest = Guest::start("stream").await;
    let agent = guest.agent().await;
    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    run(&agent, &container("c1", &["sleep", "1000"])).await;
    let mut second = container("c2", &["sh", "-c", IDENTITY]);
    second.sandbox_pidns = true;
    run(&agent, &second).await;
    let shared = guest.output(&agent, "c2", "").await;

    let exec = |id: &str, script: &str| ExecProcessRequest {
        container_id: "c1".into(),
        exec_id: id.into(),
        process: Some(guest::process(&["sh", "-c", script])).into(),
        ..Default::default()
    };
    agent.exec_process(context(), &exec("e1", IDENTITY)).await.unwrap();
    assert_eq!(guest.output(&agent, "c1", "e1").await, shared, "containers of a pod share pid and IPC namespaces");
    assert_eq!(wait(&agent, "c1", "e1").await, 0);

    agent.exec_process(context(), &exec("e2", "cat; echo end")).await.unwrap();
    for data in [&b"one "[..], b"two ", b""] {
        let request = WriteStreamRequest {
            container_id: "c1".into(),
            exec_id: "e2".into(),
            data: data.to_vec(),
            ..Default::default()
        };
        let written = agent.write_stdin(context(), &request).await.unwrap();
        assert_eq!(written.len as usize, data.len());
    }
    assert_eq!(guest.output(&agent, "c1", "e2").await, "one two end\n");
    let resize = TtyWinResizeRequest { container_id: "c1".into(), row: 1, column: 1, ..Default::default() };
    let result = agent.tty_win_resize(context(), &resize).await;
    assert!(is_code(&result, Code::UNAVAILABLE), "{result:?}");

    let kill = SignalProcessRequest { container_id: "c1".into(), signal: 9, ..Default::default() };
    agent.signal_process(context(), &kill).await.unwrap();
    assert_eq!(wait(&agent, "c1", "c1").await, 137);
    guest.end().await;
}

#[tokio::test]
async fn failures_carry_the_codes_of_the_contract() {
    let guest = Guest::start("codes").await;
    let agent = guest.agent().await;
    let early = agent.create_container(context(), &container("c1", &["true"])).await;
    assert!(is_code(&early, Code::UNAVAILABLE), "{early:?}");
    for id in ["", "../x", "a/b"] {
        let result =
            agent.create_sandbox(context(), &CreateSandboxRequest { sandbox_id: id.into(), ..sandbox() }).await;
        assert!(is_code(&result, Code::INVALID_ARGUMENT), "{id}: {result:?}");
    }
    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    let again = agent.create_sandbox(context(), &sandbox()).await;
    assert!(is_code(&again, Code::FAILED_PRECONDITION), "{again:?}");

    let bad = agent.create_container(context(), &container("..", &["true"])).await;
    assert!(is_code(&bad, Code::INVALID_ARGUMENT), "{bad:?}");
    let mut storage = container("c1", &["true"]);
    storage.storages.push(Storage { driver: "9p".into(), mount_point: "/x".into(), ..Default::default() });
    let unsupported = agent.create_container(context(), &storage).await;
    assert!(is_code(&unsupported, Code::UNIMPLEMENTED), "{unsupported:?}");
    // The name is free again after a failure.
    agent.create_container(context(), &container("c1", &["true"])).await.unwrap();
    let twice = agent.create_container(context(), &container("c1", &["true"])).await;
    assert!(is_code(&twice, Code::FAILED_PRECONDITION), "{twice:?}");
    let unknown = agent
        .wait_process(
            context(),
            &WaitProcessRequest { container_id: "c1".into(), exec_id: "e".into(), ..Default::default() },
        )
        .await;
    assert!(is_code(&unknown, Code::NOT_FOUND), "{unknown:?}");

    let unimplemented = [
        agent.resize_volume(context(), &ResizeVolumeRequest::new()).await,
        agent.set_policy(context(), &SetPolicyRequest::new()).await,
        agent.mem_agent_memcg_set(context(), &MemAgentMemcgConfig::new()).await,
    ];
    for result in unimplemented {
        assert!(is_code(&result, Code::UNIMPLEMENTED), "{result:?}");
    }
    guest.end().await;
}

#[tokio::test]
async fn a_broken_connection_breaks_no_request() {
    let guest = Guest::start("broken").await;
    let agent = guest.agent().await;
    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    let request = container("c1", &["true"]);
    let creating = tokio::spawn({
        let (guest, request) = (guest.agent().await, request.clone());
        async move { guest.create_container(context(), &request).await }
    });
    // Long enough for the request to arrive, not for the container to be built.
    tokio::time::sleep(Duration::from_millis(5)).await;
    creating.abort();
    drop(creating);
    let stats = StatsContainerRequest { container_id: "c1".into(), ..Default::default() };
    until(async || match agent.stats_container(context(), &stats).await {
        Err(ttrpc::Error::RpcStatus(status)) if status.code() == Code::NOT_FOUND => {
            // The request may not have been sent before the connection broke.
            let _ = agent.create_container(context(), &request).await;
            false
        }
        Err(ttrpc::Error::RpcStatus(status)) => status.code() != Code::FAILED_PRECONDITION,
        _ => true,
    })
    .await;
    agent
        .remove_container(context(), &RemoveContainerRequest { container_id: "c1".into(), ..Default::default() })
        .await
        .unwrap();
    guest.end().await;
}

#[tokio::test]
async fn one_slow_request_does_not_hold_up_others() {
    let guest = Guest::start("slow").await;
    let agent = guest.agent().await;
    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    run(&agent, &container("c1", &["sleep", "1000"])).await;
    let waiting = tokio::spawn({
        let agent = agent.clone();
        async move {
            let request = GetOOMEventRequest::new();
            let oom = agent.get_oom_event(context(), &request);
            tokio::join!(wait(&agent, "c1", ""), oom)
        }
    });
    // A disk that never comes holds up its own container only.
    let missing = tokio::spawn({
        let agent = agent.clone();
        let mut request = container("c2", &["true"]);
        request.storages.push(Storage {
            driver: "blk".into(),
            source: "1e/1e".into(),
            mount_point: "/run/disk".into(),
            ..Default::default()
        });
        async move { agent.create_container(context(), &request).await }
    });
    let begun = std::time::Instant::now();
    run(&agent, &container("c3", &["true"])).await;
    assert_eq!(wait(&agent, "c3", "").await, 0);
    let volume = VolumeStatsRequest { volume_guest_path: "/".into(), ..Default::default() };
    assert_eq!(agent.get_volume_stats(context(), &volume).await.unwrap().usage.len(), 2);
    let metrics = agent.get_metrics(context(), &GetMetricsRequest::new()).await.unwrap().metrics;
    assert!(metrics.contains("kata_agent_scrape_count 1"), "{metrics}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(!missing.is_finished(), "the disk is still waited for");
    let missing = missing.await.unwrap();
    assert!(is_code(&missing, Code::DEADLINE_EXCEEDED), "{missing:?}");

    // Leaving ends every wait.
    agent.destroy_sandbox(context(), &DestroySandboxRequest::new()).await.unwrap();
    let (status, oom) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(status, 137);
    assert!(oom.is_err());
    assert!(guest.ended().await.success());
}

#[tokio::test]
async fn a_signal_ends_the_agent_in_good_order() {
    let guest = Guest::start("signal").await;
    let agent = guest.agent().await;
    agent.create_sandbox(context(), &sandbox()).await.unwrap();
    run(&agent, &container("c1", &["sleep", "1000"])).await;
    guest.end().await;
}
