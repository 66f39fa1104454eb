//! Pods on a CNI bridge: to each other, to and from the host, TCP and UDP, IPv4
//! and IPv6.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use osc_testkit::{
    command::until,
    host::{Host, LIMIT},
    pod::Pod,
};

const FOREVER: [&str; 2] = ["sleep", "100000"];
const SHORT: Duration = Duration::from_secs(2);

/// What a TCP server says right after it accepted.
fn said(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, SHORT).ok()?;
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned())
}

fn parsed(pod: &Pod<'_>) -> Vec<IpAddr> {
    pod.addresses().iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn pods_and_host_reach_each_other_over_both_protocols_and_families() {
    let host = Host::start();
    let (left, right) = (Pod::start(&host, |_| {}), Pod::start(&host, |_| {}));
    let serve = "while :; do nc -l -p 7000 -e echo tcp; done & while :; do nc -u -l -p 7001 -e echo udp; done & wait";
    let server = left.add("server", &["sh", "-c", serve], |_| {});
    let client = right.add("client", &FOREVER, |_| {});
    let addresses = parsed(&left);
    assert!(addresses.iter().any(IpAddr::is_ipv4), "{addresses:?}");
    assert!(addresses.iter().any(IpAddr::is_ipv6), "{addresses:?}");

    for address in &addresses {
        // From the host.
        assert!(until(LIMIT, || said((*address, 7000).into()).as_deref() == Some("tcp")), "host to {address}");
        // From the other pod.
        let tcp = format!("nc -w 3 {address} 7000 </dev/null");
        assert!(until(LIMIT, || right.sh(&client, &tcp).out == "tcp"), "pod to {address}");
        let udp = format!("echo x | nc -u -w 1 {address} 7001");
        assert!(until(LIMIT, || right.sh(&client, &udp).out == "udp"), "pod to {address} by UDP");
    }

    // To the host: the bridge's own addresses are the pods' gateways.
    for (family, any) in [("-4", "0.0.0.0"), ("-6", "::")] {
        let gateway = right.out(&client, &format!("ip {family} route | awk '/^default/ {{ print $3; exit }}'"));
        let listener = TcpListener::bind((any, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let host_side = thread::spawn(move || listener.accept().unwrap().0.write_all(b"host\n").unwrap());
        assert!(until(LIMIT, || right.sh(&client, &format!("nc -w 3 {gateway} {port} </dev/null")).out == "host"));
        host_side.join().unwrap();

        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut datagram = [0; 16];
        assert!(until(LIMIT, || {
            right.sh(&client, &format!("echo datagram | nc -u -w 1 {gateway} {port}"));
            socket.recv(&mut datagram).is_ok_and(|count| datagram[..count].starts_with(b"datagram"))
        }));
    }
    assert_eq!(left.sh(&server, "true").code, 0);
    left.delete();
    right.delete();
    host.end();
}

#[test]
fn the_interface_looks_like_the_one_cni_made_and_carries_full_frames() {
    let host = Host::start();
    let (sandboxed, plain) = (Pod::start(&host, |_| {}), Pod::try_start(&host, "runc", |_| {}).unwrap());
    let inside = sandboxed.add("one", &FOREVER, |_| {});
    let reference = plain.add("one", &FOREVER, |_| {});
    let mtu = "cat /sys/class/net/eth0/mtu";
    assert_eq!(sandboxed.out(&inside, mtu), plain.out(&reference, mtu));
    let prefix = "ip -4 addr show eth0 | awk '/inet / { sub(\".*/\", \"\", $2); print $2 }'";
    assert_eq!(sandboxed.out(&inside, prefix), plain.out(&reference, prefix));

    // 4 MiB each way between a sandboxed and a plain pod, sums compared.
    let sum = |pod: &Pod<'_>, id: &str, script: &str| pod.out(id, &format!("{script} | md5sum"));
    let make = "yes 0123456789abcdef | head -c 4194304";
    let want = sum(&plain, &reference, make);
    for (from, from_id, to, to_id) in
        [(&plain, &reference, &sandboxed, &inside), (&sandboxed, &inside, &plain, &reference)]
    {
        from.out(from_id, &format!("({make} | nc -l -p 7100 >/dev/null 2>&1) >/dev/null 2>&1 &"));
        let address = &from.addresses()[0];
        let fetch = format!("for i in 1 2 3 4 5; do nc -w 10 {address} 7100 </dev/null && break; sleep 1; done");
        assert_eq!(sum(to, to_id, &fetch), want);
    }
    sandboxed.delete();
    plain.delete();
    host.end();
}
