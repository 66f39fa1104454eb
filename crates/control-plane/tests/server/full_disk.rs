//! The disk of a serving process runs full, and has room again.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams},
};
use tokio::time::timeout;

use crate::{
    common::PATIENCE,
    process::{self, Server},
};

const TEST: &str = "full_disk::a_full_disk_refuses_writes_and_nothing_else";
/// A small disk for the store, which only the server has and which goes with it.
const OWN_DISK: &str = r#"exec unshare --mount sh -ec '
    mount -t tmpfs -o size=24m tmpfs "$OSC_CONTROL_PLANE_TEST_DIR/store"
    exec "$0" "$@"' "$0" "$@""#;
/// More writes of this size than fit on it.
const WRITES: usize = 200;
const SIZE: usize = 200 << 10;

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    if !process::serves(|_| {}) {
        process::runtime().block_on(run());
    }
}

async fn run() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    fs::create_dir(&store).unwrap();
    let server = Server::start(TEST, directory.path(), OWN_DISK).await;
    // Refusals are what this is about: they are not to be tried again.
    let mut config = server.config().await;
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let ready = async || {
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        client.request_text(request).await.unwrap()
    };
    let mut written = vec![write(&maps, 0).await.unwrap()];
    let mut events = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();

    let filler = server.inside(&store).join("filler");
    fill(&filler);
    let refusal = loop {
        assert!(written.len() < WRITES, "the disk never runs full");
        match write(&maps, written.len()).await {
            Ok(name) => written.push(name),
            Err(refusal) => break refusal,
        }
    };
    let kube::Error::Api(status) = refusal else { panic!("{refusal}") };
    assert_eq!((status.code, status.reason.as_str()), (503, "ServiceUnavailable"), "{status:?}");
    assert!(status.message.contains("look for free space"), "{status:?}");
    // It stays full, and what was acknowledged can be read.
    write(&maps, WRITES).await.unwrap_err();
    assert_eq!(ready().await, "ok");
    assert_eq!(names(&maps).await, written);

    fs::remove_file(&filler).unwrap();
    written.push(write(&maps, written.len()).await.unwrap());
    assert_eq!(names(&maps).await, written);
    let mut told = Vec::new();
    while told.len() < written.len() {
        match timeout(PATIENCE, events.next()).await.expect("an event in time") {
            Some(Ok(WatchEvent::Added(map))) => told.push(map.metadata.name.unwrap()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, written);
    server.kill().await;
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

async fn write(maps: &Api<ConfigMap>, number: usize) -> kube::Result<String> {
    let name = format!("m{number:03}");
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name.clone()), ..Default::default() },
        data: Some([("x".to_owned(), "x".repeat(SIZE))].into()),
        ..Default::default()
    };
    maps.create(&PostParams::default(), &map).await.map(|_| name)
}

async fn names(maps: &Api<ConfigMap>) -> Vec<String> {
    let list = maps.list(&ListParams::default()).await.unwrap();
    list.items.into_iter().map(|map| map.metadata.name.unwrap()).collect()
}
