//! Real namespaces and sockets; the guest is a Unix socket of this process.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream as Dialled},
};

use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;
use crate::{network::tests::Pod, socket};

const PATIENCE: Duration = Duration::from_secs(10);
/// The guest has nothing there.
const SILENT: u16 = 81;

/// A relay that tells who was asked for, then returns what it is sent.
fn guest() -> (TempDir, Address) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("relay.sock");
    let listener = socket::listen(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                match stream.read_u16().await? {
                    SILENT => stream.write_u8(names::RELAY_REFUSED).await,
                    port => {
                        stream.write_u8(names::RELAY_CONNECTED).await?;
                        stream.write_all(format!("{port}:").as_bytes()).await?;
                        let (mut from, mut to) = stream.split();
                        tokio::io::copy(&mut from, &mut to).await?;
                        to.shutdown().await
                    }
                }
            });
        }
    });
    (dir, Address::Unix { path })
}

/// What an engine does: dials in the namespace, sends, ends, and reads.
async fn ask(netns: &Path, to: &str, text: &'static str) -> Result<String, io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let asked = netns::run(netns, move || {
        // The namespace is entered; errors of the connection are the answer.
        Ok((|| {
            let mut stream = Dialled::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(text.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })())
    });
    asked.await.unwrap().map_err(|error: io::Error| error.kind())
}

/// Dials until there is an answer other than a refusal.
async fn ask_until_steered(netns: &Path, to: &str, text: &'static str) -> Result<String, io::ErrorKind> {
    let by = Deadline::after(PATIENCE);
    loop {
        match ask(netns, to, text).await {
            Err(io::ErrorKind::ConnectionRefused) if !by.passed() => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_of_the_pod_is_that_of_the_guest_as_long_as_the_sandbox_lives() {
    let (pod, (_dir, address)) = (Pod::new(), guest());
    assert_eq!(ask(&pod.path, "127.0.0.1:80", "x").await, Err(io::ErrorKind::ConnectionRefused));
    let forward = Forward::start(pod.path.clone(), address);
    assert_eq!(ask_until_steered(&pod.path, "127.0.0.1:80", "hello").await.unwrap(), "80:hello");

    let many = (1..100).map(|_| ask(&pod.path, "127.0.0.2:8080", "many"));
    for answer in futures::future::join_all(many).await {
        assert_eq!(answer.unwrap(), "8080:many");
    }
    // An empty answer would look like one.
    let refused = ask(&pod.path, &format!("127.0.0.1:{SILENT}"), "").await;
    assert_eq!(refused, Err(io::ErrorKind::ConnectionReset));
    // The pod's own address is the guest's business and not steered.
    assert_eq!(ask(&pod.path, "10.77.0.2:80", "x").await, Err(io::ErrorKind::ConnectionRefused));

    drop(forward);
    let by = Deadline::after(PATIENCE);
    while ask(&pod.path, "127.0.0.1:80", "x").await != Err(io::ErrorKind::ConnectionRefused) {
        assert!(!by.passed(), "still steered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_relay_leaves_refusals() {
    let (pod, dir) = (Pod::new(), TempDir::new().unwrap());
    let address = Address::Unix { path: dir.path().join("absent.sock") };
    let refused = forward(&pod.path, &address).await.unwrap_err();
    assert!(matches!(refused, ForwardError::NoRelay { .. }), "{refused:?}");
    assert_eq!(ask(&pod.path, "127.0.0.1:80", "x").await, Err(io::ErrorKind::ConnectionRefused));
}
