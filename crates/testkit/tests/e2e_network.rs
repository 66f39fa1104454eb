//! Pods on a CNI bridge: to each other, to and from the host, TCP and UDP, IPv4
//! and IPv6.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_cri::v1;
use osc_testkit::{
    command::{self, until},
    guest,
    host::{Host, LIMIT},
    pod::Pod,
};

const PORT: &str = "7000";

/// A program that talks over networks, on the host and as a volume of pods.
struct Talk {
    program: PathBuf,
}

impl Talk {
    fn new(host: &Host) -> Self {
        guest::fixture("talk", &host.root);
        Self { program: host.root.join("talk") }
    }

    fn mounted(&self, config: &mut v1::ContainerConfig) {
        config.mounts = vec![v1::Mount {
            container_path: "/talk".into(),
            host_path: self.program.to_str().unwrap().into(),
            readonly: true,
            ..Default::default()
        }];
    }

    fn reaches(&self, protocol: &str, address: &str) -> bool {
        let mut command = Command::new(&self.program);
        command.args([protocol, address, PORT]);
        command::run(command, b"", LIMIT).code == 0
    }
}

/// Ends with the test, whatever happens in it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn behind_a_macvtap(config: &mut v1::PodSandboxConfig) {
    let key = "io.katacontainers.config.runtime.internetworking_model";
    config.annotations.insert(key.into(), "macvtap".into());
}

#[test]
fn pods_and_host_reach_each_other_over_both_protocols_and_families() {
    let host = Host::start();
    let talk = Talk::new(&host);
    let pods = [
        ("pod", Pod::start(&host, |_| {})),
        ("pod behind a macvtap", Pod::start(&host, behind_a_macvtap)),
        ("plain pod", Pod::try_start(&host, "runc", |_| {}).unwrap()),
    ];
    let servers = pods.each_ref().map(|(_, pod)| pod.add("server", &["/talk", "serve", PORT], |c| talk.mounted(c)));
    let client = Pod::start(&host, |_| {});
    let shell = client.add("client", &["sleep", "100000"], |config| talk.mounted(config));
    let on_host = Command::new(&talk.program).args(["serve", PORT]).stdin(Stdio::null()).spawn().unwrap();
    let on_host = Server(on_host);

    for ((name, pod), server) in pods.iter().zip(&servers) {
        let addresses = pod.addresses();
        assert!(addresses.iter().any(|address| address.contains('.')), "{name}: {addresses:?}");
        assert!(addresses.iter().any(|address| address.contains(':')), "{name}: {addresses:?}");
        let gateway = |family| pod.out(server, &format!("ip {family} route | awk '/^default/ {{ print $3; exit }}'"));
        let gateways = ["-4", "-6"].map(gateway);
        for protocol in ["tcp", "udp"] {
            let reaches = |from: &Pod<'_>, container: &str, address: &str| {
                from.sh(container, &format!("/talk {protocol} {address} {PORT}")).code == 0
            };
            for address in &addresses {
                assert!(until(LIMIT, || talk.reaches(protocol, address)), "host to {name} {address} over {protocol}");
                let answered = until(LIMIT, || reaches(&client, &shell, address));
                assert!(answered, "pod to {name} {address} over {protocol}");
            }
            for address in &gateways {
                assert!(until(LIMIT, || reaches(pod, server, address)), "{name} to host {address} over {protocol}");
            }
        }
    }
    drop(on_host);
    for ((name, pod), server) in pods.into_iter().zip(servers) {
        assert_eq!(pod.sh(&server, "true").code, 0, "{name}");
        pod.delete();
    }
    client.delete();
    host.end();
}

#[test]
fn the_interface_looks_like_the_one_cni_made() {
    let host = Host::start();
    let (sandboxed, plain) = (Pod::start(&host, |_| {}), Pod::try_start(&host, "runc", |_| {}).unwrap());
    let [inside, reference] = [&sandboxed, &plain].map(|pod| pod.add("one", &["sleep", "100000"], |_| {}));
    for script in [
        "ip link show eth0 | grep -o 'mtu [0-9]*'",
        "ip -4 addr show eth0 | grep -o 'inet [0-9.]*/[0-9]*' | grep -o '/.*'",
        "ip -6 addr show eth0 | grep 'scope global' | grep -o '/[0-9]* scope'",
        "ip -4 route | awk '{ print $1, $2, $3 }' | grep default",
        "ip -6 route | awk '{ print $1, $2, $3 }' | grep default",
    ] {
        // Duplicate address detection delays global IPv6 addresses a little.
        let same = until(Duration::from_secs(10), || sandboxed.sh(&inside, script) == plain.sh(&reference, script));
        assert!(same, "{script}: {:?} and {:?}", sandboxed.sh(&inside, script), plain.sh(&reference, script));
        assert_eq!(sandboxed.sh(&inside, script).code, 0, "{script}");
    }
    sandboxed.delete();
    plain.delete();
    host.end();
}
