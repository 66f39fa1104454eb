//! Requests that are too much: too large, too slow, too deep, too many.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request};
use http_body_util::{Full, StreamBody};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    time::{Instant, timeout},
};

use crate::{
    common::{self, Cluster, PATIENCE, config_map},
    wire::{self, Probe, Who},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MOST: usize = 3 << 20;

/// The head of a `POST` of that length.
fn head(length: usize) -> String {
    format!(
        "POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn three_mebibytes_are_enough() {
    let cluster = Cluster::start().await;
    let map = config_map("padded").to_string();
    let body = |length: usize| format!("{map}{}", " ".repeat(length - map.len()));
    let post = async |body: String| cluster.call_with(Method::POST, MAPS, "application/json", body).await;
    assert_eq!(post(body(MOST)).await.0, 201);
    let (code, status) = post(body(MOST + 1)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    // Without a length in front, it is counted.
    let chunks = std::iter::repeat_n(bytes::Bytes::from(vec![b' '; 1 << 16]), 49);
    let chunks = futures::stream::iter(chunks.map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(chunk))));
    let request = Request::post(MAPS).header("content-type", "application/json").body(StreamBody::new(chunks)).unwrap();
    let answer = tower::ServiceExt::oneshot(cluster.plane.service(osc_access::Identity::administrator()), request);
    assert_eq!(answer.await.unwrap().status(), 413);
    // Over the wire the announcement is enough.
    let mut stream = BufReader::new(wire::connect(&cluster, Who::Administrator).await);
    stream.write_all(head(MOST + 1).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(wire::status(&mut stream).await, 413);
    cluster.stop().await;
}

#[tokio::test]
async fn strangers_are_neither_waited_for_nor_told_numbers() {
    let cluster = Cluster::start().await;
    let mut stream = BufReader::new(wire::connect(&cluster, Who::Stranger).await);
    stream.write_all(head(MOST).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(wire::status(&mut stream).await, 403);
    let mut stream = BufReader::new(wire::connect(&cluster, Who::Stranger).await);
    wire::ask(stream.get_mut(), "/metrics").await;
    assert_eq!(wire::status(&mut stream).await, 403);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_hold_up_nobody() {
    let cluster = Cluster::alone(|config| config.limits.body = Duration::from_secs(2)).await;
    let probe = Probe::start(cluster.client().await).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = wire::connect(&cluster, Who::Administrator).await;
        stream.write_all(head(1000).as_bytes()).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        stream.flush().await.unwrap();
        slow.push(BufReader::new(stream));
    }
    for stream in &mut slow {
        assert_eq!(wire::status(stream).await, 504);
    }
    probe.finish("slow bodies").await;
    cluster.stop().await;
}

#[tokio::test]
async fn all_bodies_together_have_bounds() {
    let cluster = Cluster::open(|config| config.limits.all_bodies_bytes = 1 << 20).await;
    let mut first = BufReader::new(wire::connect(&cluster, Who::Administrator).await);
    first.write_all(head(1 << 20).as_bytes()).await.unwrap();
    first.write_all(&vec![b' '; (1 << 20) - 20_000]).await.unwrap();
    first.flush().await.unwrap();
    let full = async {
        loop {
            let (code, _) = cluster.call_with(Method::POST, MAPS, "application/json", " ".repeat(100_000)).await;
            match code {
                429 => return,
                // The first one is still on its way.
                400 => tokio::time::sleep(Duration::from_millis(5)).await,
                code => panic!("{code}"),
            }
        }
    };
    timeout(PATIENCE, full).await.expect("no room");
    assert_eq!(cluster.get(MAPS).await.0, 200, "who sends nothing needs no room");
    drop(first);
    let again = async {
        while cluster.call(Method::POST, MAPS, config_map("c")).await.0 != 201 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("room again");
    cluster.stop().await;
}

/// A field of protobuf: its number and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut length) = (vec![number << 3 | 2], bytes.len());
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// A definition whose schema says `not: {not: {not: …`, in the envelope of Kubernetes.
fn deep_protobuf(depth: usize) -> Vec<u8> {
    // JSONSchemaProps: 30 is `not`, which takes two bytes of tag.
    let mut schema = Vec::new();
    for _ in 0..depth {
        let mut next = field(30, &schema);
        next.splice(0..1, [0xf2, 0x01]);
        schema = next;
    }
    let version = [field(1, b"v1"), field(4, &field(1, &schema))].concat();
    let definition = field(2, &field(7, &version));
    let kind = [field(1, b"apiextensions.k8s.io/v1"), field(2, b"CustomResourceDefinition")].concat();
    [b"k8s\0".to_vec(), field(1, &kind), field(2, &definition)].concat()
}

#[tokio::test]
async fn depth_has_bounds_in_every_language() {
    const DEPTH: usize = 100_000;
    let cluster = Cluster::start().await;
    cluster.create(MAPS, config_map("a")).await;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(DEPTH), close.repeat(DEPTH));
    let (one, crds) = (format!("{MAPS}/a"), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    let apply = format!("{one}?fieldManager=x");
    let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, at| {
        format!("{text}a{at}: &a{at} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", at - 1)
    });
    let indented = (0..1500).fold(String::new(), |text, at| format!("{text}{}a:\n", " ".repeat(at)));
    let rows: [(Method, &str, &str, Vec<u8>); 12] = [
        (Method::POST, MAPS, "application/json", nested("[", "]").into()),
        (Method::POST, MAPS, "application/json", nested(r#"{"metadata":"#, "}").into()),
        (Method::POST, MAPS, "application/yaml", nested("[", "]").into()),
        (Method::POST, MAPS, "application/yaml", nested("{a: ", "}").into()),
        (Method::POST, MAPS, "application/yaml", indented.into()),
        (Method::POST, MAPS, "application/yaml", bomb.clone().into()),
        (Method::PATCH, &apply, "application/apply-patch+yaml", bomb.into()),
        (Method::POST, crds, "application/vnd.kubernetes.protobuf", deep_protobuf(20_000)),
        (Method::PATCH, &one, "application/merge-patch+json", nested(r#"{"data":"#, "}").into()),
        (Method::PATCH, &one, "application/strategic-merge-patch+json", nested(r#"{"data":"#, "}").into()),
        (
            Method::PATCH,
            &one,
            "application/json-patch+json",
            format!(r#"[{{"op": "add", "path": "/data", "value": {}}}]"#, nested("[", "]")).into(),
        ),
        (
            Method::PATCH,
            &one,
            "application/json-patch+json",
            json!([{"op": "add", "path": "/a".repeat(DEPTH), "value": 1}]).to_string().into(),
        ),
    ];
    for (method, path, media_type, body) in rows {
        let (shown, began) = (String::from_utf8_lossy(&body[..40]).into_owned(), Instant::now());
        let request = Request::builder().method(method).uri(path).header("content-type", media_type);
        let (code, answer) = common::read(cluster.send(request.body(Full::from(body)).unwrap()).await).await;
        assert!(matches!(code, 400 | 413 | 415 | 422), "{media_type} {shown}: {code} {answer}");
        assert!(began.elapsed() < Duration::from_secs(2), "{media_type} {shown}: {:?}", began.elapsed());
    }
    assert_eq!(cluster.get(&one).await.1["data"], json!({"k": "v"}));
    cluster.stop().await;
}

#[tokio::test]
async fn headers_have_bounds() {
    let cluster = Cluster::start().await;
    let floods = [
        format!("X-Much: {}\r\n", "x".repeat(200_000)),
        (0..5000).map(|at| format!("X-{at}: x\r\n")).collect::<String>(),
    ];
    for flood in floods {
        let mut stream = BufReader::new(wire::connect(&cluster, Who::Administrator).await);
        let request = format!("GET /version HTTP/1.1\r\nHost: localhost\r\n{flood}\r\n");
        // The server may hang up before all of it is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let mut sender = wire::connect_h2(&cluster).await;
    let mut request = Request::builder().uri("https://localhost/version");
    for at in 0..5000 {
        request = request.header(format!("x-{at}"), "x".repeat(20));
    }
    sender.ready().await.unwrap();
    let answer = timeout(PATIENCE, sender.send_request(request.body(Full::default()).unwrap())).await.expect("an end");
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    assert_eq!(cluster.get("/readyz").await.0, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_limit_are_sent_away() {
    let cluster = Cluster::open(|config| config.limits.requests = 1).await;
    // A webhook that takes connections and says nothing keeps a request busy.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore", "timeoutSeconds": 3,
            "clientConfig": {
                "url": format!("https://{}/", silent.local_addr().unwrap()),
                "caBundle": STANDARD.encode(cluster.plane.authority().certificate_pem()),
            },
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]
        }]
    });
    cluster.create("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", hook).await;
    let mut busy = BufReader::new(wire::connect(&cluster, Who::Administrator).await);
    let body = config_map("slow").to_string();
    busy.write_all(format!("{}{body}", head(body.len())).as_bytes()).await.unwrap();
    busy.flush().await.unwrap();
    // It is being served once the webhook is asked.
    let _asked = timeout(PATIENCE, silent.accept()).await.expect("the webhook is asked").unwrap();
    let mut other = wire::connect(&cluster, Who::Administrator).await;
    wire::ask(&mut other, MAPS).await;
    let mut answer = vec![0; 4096];
    let count = timeout(PATIENCE, other.read(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(cluster.get(MAPS).await.0, 200, "parts of the process itself are not sent away");
    let mut other = BufReader::new(other);
    wire::ask(other.get_mut(), "/readyz").await;
    assert_eq!(wire::status(&mut other).await, 200, "nor is who asks for its health");
    assert_eq!(wire::status(&mut busy).await, 201);
    wire::ask(other.get_mut(), &format!("{MAPS}?limit=1")).await;
    assert_eq!(wire::status(&mut other).await, 200, "there is a place again");
    cluster.stop().await;
}
