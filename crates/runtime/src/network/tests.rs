//! Real namespaces, interfaces and taps; the guest is this process at the tap's
//! end.

use std::{
    fs::File,
    io::{Read, Write},
    net::UdpSocket,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use osc_agent_protocol::Kind;
use std::os::fd::AsFd;

use super::*;

const TCFILTER: Wiring = Wiring { model: NetworkModel::TcFilter, queues: 1, vhost_net: true };
const MACVTAP: Wiring = Wiring { model: NetworkModel::MacVtap, ..TCFILTER };

const POD_MAC: &str = "02:00:00:00:00:02";
const PEER_MAC: &str = "02:00:00:00:00:01";

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// Runs a command and returns what it prints.
#[track_caller]
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pod's namespace, and one at the other end of its wire.
pub(in crate::network) struct Pod {
    name: String,
    /// Where it is.
    pub(in crate::network) path: PathBuf,
}

impl Pod {
    fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("osct-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        sh(&format!("ip netns add {name}; ip netns add {name}-peer"));
        let path = Path::new("/run/netns").join(&name);
        Self { name, path }
    }

    pub(in crate::network) fn new() -> Self {
        let pod = Self::empty();
        pod.plug();
        pod
    }

    /// What a container engine does: an interface with addresses and routes.
    fn plug(&self) {
        let pod = &self.name;
        sh(&format!(
            "ip -n {pod} link add eth0 mtu 1400 address {POD_MAC} type veth peer name host0 netns {pod}-peer
             ip -n {pod}-peer link set host0 address {PEER_MAC} mtu 1400
             ip -n {pod}-peer address add 10.77.0.1/24 dev host0
             ip -n {pod}-peer address add fd77::1/64 dev host0 nodad
             ip -n {pod}-peer link set host0 up
             ip -n {pod} address add 10.77.0.2/24 dev eth0
             ip -n {pod} address add fd77::2/64 dev eth0 nodad
             ip -n {pod} link set lo up
             ip -n {pod} link set eth0 up
             ip -n {pod} link add down0 type bridge"
        ));
    }

    fn peer(&self) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-peer", self.name))
    }

    /// What can be seen of the namespace from outside, without numbers that
    /// change by themselves.
    fn state(&self) -> String {
        let pod = &self.name;
        sh(&format!(
            "ip -n {pod} -o link | sed 's/\\\\.*//; s/ qdisc.*//; s/NO-CARRIER,//; s/,LOWER_UP//'; ip -n {pod} -o link show dev eth0 | grep -o 'link/ether [^ ]*'
             ip -n {pod} -o -4 address | sed 's/\\\\.*//'; tc -n {pod} qdisc show dev eth0 | grep -v noqueue || true"
        ))
    }

    async fn peer_socket(&self) -> UdpSocket {
        let socket = netns::run(&self.peer(), || UdpSocket::bind("10.77.0.1:7")).await.unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in [self.name.clone(), format!("{}-peer", self.name)] {
            if let Err(error) = Command::new("ip").args(["netns", "del", &name]).status() {
                eprintln!("namespace {name} stays behind: {error}");
            }
        }
    }
}

/// The guest's network card, seen from its back.
struct Card(File);

/// No checksum to complete, no segments.
const PLAIN: [u8; 10] = [0; 10];

impl Card {
    fn of(nics: Vec<Nic>) -> Self {
        let [nic] = <[Nic; 1]>::try_from(nics).unwrap();
        let [tap] = <[OwnedFd; 1]>::try_from(nic.taps).unwrap();
        Self(tap.into())
    }

    fn send(&mut self, header: [u8; 10], frame: &[u8]) {
        self.0.write_all(&[&header, frame].concat()).unwrap();
    }

    /// The next frame that is `wanted`, with its header.
    fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> ([u8; 10], Vec<u8>) {
        let mut buffer = [0; 2048];
        loop {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ready, PollTimeout::from(5000u16)).unwrap(), 1, "no such frame came");
            let len = self.0.read(&mut buffer).unwrap();
            let (header, frame) = buffer[..len].split_at(10);
            if wanted(frame) {
                return (header.try_into().unwrap(), frame.to_vec());
            }
        }
    }
}

fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn ethernet(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &mac(POD_MAC), &kind.to_be_bytes(), payload].concat()
}

/// "Who has 10.77.0.1?"
fn arp_question() -> Vec<u8> {
    let asks = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac(POD_MAC), &[10, 77, 0, 2], &[0; 6], &[10, 77, 0, 1]].concat();
    ethernet([0xff; 6], 0x0806, &asks)
}

/// "Who has fd77::2?", asked of the group of all whose address ends like that.
fn is_neighbour_solicitation(frame: &[u8]) -> bool {
    frame[..6] == mac("33:33:ff:00:00:02") && frame[12..14] == [0x86, 0xdd] && frame[54] == 135
}

fn is_arp_answer(frame: &[u8]) -> bool {
    frame[..6] == mac(POD_MAC) && frame[12..14] == [8, 6] && frame[21] == 2 && frame[22..28] == mac(PEER_MAC)
}

/// Sum of 16-bit words as checksums of the Internet have it.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

const FROM_TO: [u8; 8] = [10, 77, 0, 2, 10, 77, 0, 1];

/// A datagram to 10.77.0.1:7 whose checksum is left to whoever sends it on, and
/// the header that says so.
fn datagram_without_checksum(payload: &[u8]) -> ([u8; 10], Vec<u8>) {
    let len = (8 + payload.len()) as u16;
    let mut ip = [&[0x45, 0][..], &(20 + len).to_be_bytes(), &[0, 1, 0, 0, 64, 17, 0, 0], &FROM_TO].concat();
    let checksum = !sum(&[&ip]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = sum(&[&FROM_TO, &[0, 17], &len.to_be_bytes()]);
    let udp = [&[0, 9, 0, 7][..], &len.to_be_bytes(), &pseudo.to_be_bytes(), payload].concat();
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, from byte 34, into byte 34 + 6.
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0];
    (header, ethernet(mac(PEER_MAC), 0x0800, &[ip, udp].concat()))
}

#[tokio::test]
async fn frames_flow_both_ways_under_either_model() {
    for wiring in [TCFILTER, MACVTAP] {
        let pod = Pod::new();
        let mut network = Network::attach(&pod.path, wiring, soon()).await.unwrap();
        let mut card = Card::of(network.nics());
        assert!(network.nics().is_empty(), "a card is handed out once");
        card.send(PLAIN, &arp_question());
        card.receive(is_arp_answer);

        // The host completes the checksum the guest left out.
        let socket = pod.peer_socket().await;
        let (header, frame) = datagram_without_checksum(b"from the guest");
        card.send(header, &frame);
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string().as_str()), (&b"from the guest"[..], "10.77.0.2:9"), "{wiring:?}");

        // And the one of a program on the host.
        socket.send_to(b"from the host", "10.77.0.2:9").unwrap();
        let is_datagram = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 17;
        let (header, frame) = card.receive(is_datagram);
        assert_eq!(&frame[42..], b"from the host");
        assert_eq!(frame[..6], mac(POD_MAC));
        let len = ((frame.len() - 34) as u16).to_be_bytes();
        let pseudo = sum(&[&frame[26..34], &[0, 17], &len]).to_be_bytes();
        match header[0] {
            0 => assert_eq!(sum(&[&pseudo, &frame[34..]]), 0xffff, "{wiring:?}"),
            // Left to the guest as the guest leaves it to the host.
            flags => assert_eq!((flags, &frame[40..42]), (1, &pseudo[..]), "{wiring:?}"),
        }

        // Nobody on the host has joined the group the question goes to.
        let socket = netns::run(&pod.peer(), || UdpSocket::bind("[fd77::1]:7")).await.unwrap();
        socket.send_to(b"anything", "[fd77::2]:9").unwrap();
        card.receive(is_neighbour_solicitation);
        network.detach(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn the_guest_is_told_what_the_namespace_has() {
    let pod = Pod::new();
    let name = &pod.name;
    sh(&format!(
        "ip -n {name} link set eth0 arp off
         ip -n {name} route add default via 10.77.0.1 mtu 1300
         ip -n {name} route add 169.254.1.1 dev eth0 scope link
         ip -n {name} route add 10.96.0.0/12 via 169.254.1.1 dev eth0 onlink src 10.77.0.2
         ip -n {name} route add blackhole 10.99.0.0/16
         ip -n {name} route add 10.98.0.0/16 dev eth0 table 7
         ip -n {name} -6 route add default via fd77::1
         ip -n {name} address add fe80::5/64 dev eth0 nodad
         ip -n {name} neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
         ip -n {name} neighbour add 10.77.0.8 lladdr 02:00:00:00:00:08 dev eth0 nud reachable
         ip -n {name} neighbour add 10.77.0.1 lladdr {PEER_MAC} dev eth0 nud reachable"
    ));
    let mut network = Network::attach(&pod.path, TCFILTER, soon()).await.unwrap();
    let interfaces: Vec<_> = network.interfaces().iter().map(show_interface).collect();
    assert_eq!(
        interfaces,
        ["eth0 eth0 veth 02:00:00:00:00:02 mtu 1400 flags 0x80: 10.77.0.2/24 fd77::2/64(v6) fe80::5/64(v6)"]
    );
    let mut routes: Vec<_> = network.routes().iter().map(show_route).collect();
    assert_eq!(routes.remove(0), "eth0 169.254.1.1/32 via  src  scope 253 mtu 0 flags 0");
    routes.sort();
    assert_eq!(
        routes,
        [
            "eth0  via 10.77.0.1 src  scope 0 mtu 1300 flags 0",
            "eth0  via fd77::1 src  scope 0 mtu 0 flags 0 (v6)",
            "eth0 10.96.0.0/12 via 169.254.1.1 src 10.77.0.2 scope 0 mtu 0 flags 4",
        ]
    );
    let mut neighbors: Vec<_> = network
        .neighbors()
        .iter()
        .map(|n| format!("{} {} {} {:#x}", n.toIPAddress.address, n.lladdr, n.device, n.state))
        .collect();
    neighbors.sort();
    assert_eq!(neighbors, ["10.77.0.1 02:00:00:00:00:01 eth0 0x2", "10.77.0.9 02:00:00:00:00:09 eth0 0x80"]);
    let [nic] = <[Nic; 1]>::try_from(network.nics()).unwrap();
    assert_eq!((nic.id.as_str(), nic.mac, nic.mtu), ("network-tap0_kata", mac(POD_MAC), Some(1400)));
    network.detach(soon()).await.unwrap();
}

fn show_interface(i: &types::Interface) -> String {
    let addresses: Vec<_> = i
        .IPAddresses
        .iter()
        .map(|a| format!("{}/{}{}", a.address, a.mask, show_family(a.family.enum_value())))
        .collect();
    let addresses = addresses.join(" ");
    format!("{} {} {} {} mtu {} flags {:#x}: {addresses}", i.device, i.name, i.type_, i.hwAddr, i.mtu, i.raw_flags)
}

fn show_family(family: Result<types::IPFamily, i32>) -> &'static str {
    if family == Ok(types::IPFamily::v6) { "(v6)" } else { "" }
}

fn show_route(r: &types::Route) -> String {
    let text = format!(
        "{} {} via {} src {} scope {} mtu {} flags {} {}",
        r.device,
        r.dest,
        r.gateway,
        r.source,
        r.scope,
        r.mtu,
        r.flags,
        show_family(r.family.enum_value())
    );
    text.trim_end().to_owned()
}

#[tokio::test]
async fn detaching_gives_everything_back_and_may_be_repeated() {
    for wiring in [TCFILTER, MACVTAP] {
        let pod = Pod::new();
        let before = pod.state();
        let mut network = Network::attach(&pod.path, wiring, soon()).await.unwrap();
        let held = network.nics();
        assert_ne!(pod.state(), before, "{wiring:?}");
        network.detach(soon()).await.unwrap();
        assert_eq!(pod.state(), before, "{wiring:?}");
        network.detach(soon()).await.unwrap();
        drop(held);
        assert_eq!(pod.state(), before, "{wiring:?}");
    }
}

#[tokio::test]
async fn after_a_crash_names_are_enough() {
    for wiring in [TCFILTER, MACVTAP] {
        let pod = Pod::new();
        // Addresses a macvtap took are in nobody's memory any more.
        let lines = |state: String| -> Vec<String> {
            state
                .lines()
                .filter(|line| wiring.model != NetworkModel::MacVtap || !line.contains("10.77"))
                .map(str::to_owned)
                .collect()
        };
        let before = lines(pod.state());
        drop(Network::attach(&pod.path, wiring, soon()).await.unwrap());
        assert_ne!(lines(pod.state()), before, "{wiring:?}");
        cleanup(&pod.path, soon()).await.unwrap();
        assert_eq!(lines(pod.state()), before, "{wiring:?}");
        cleanup(&pod.path, soon()).await.unwrap();
    }
    cleanup(Path::new("/run/netns/osct-never-existed"), soon()).await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_sandbox_left_is_replaced() {
    for wiring in [TCFILTER, MACVTAP] {
        let pod = Pod::new();
        // Its QEMU still runs.
        let mut earlier = Network::attach(&pod.path, wiring, soon()).await.unwrap();
        let _held = earlier.nics();
        let mut network = Network::attach(&pod.path, wiring, soon()).await.unwrap();
        let mut card = Card::of(network.nics());
        card.send(PLAIN, &arp_question());
        card.receive(is_arp_answer);
        network.detach(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_namespace_costs_no_time_until_a_rescan_is_asked_for() {
    let pod = Pod::empty();
    let mut network = Network::attach(&pod.path, TCFILTER, soon()).await.unwrap();
    assert!(network.is_empty() && network.interfaces().is_empty());
    assert!(!network.rescan(Deadline::after(Duration::from_millis(120))).await.unwrap());
    let (found, ()) = tokio::join!(network.rescan(soon()), async { pod.plug() });
    assert!(found.unwrap());
    assert_eq!(network.nics().len(), 1);
    assert_eq!(network.interfaces().len(), 1);
    network.detach(soon()).await.unwrap();
}

#[tokio::test]
async fn every_interface_gets_a_card_with_its_queues() {
    for wiring in [TCFILTER, MACVTAP] {
        let pod = Pod::new();
        let name = &pod.name;
        sh(&format!(
            "ip -n {name} link add net1 type veth peer name host1 netns {name}-peer
             ip -n {name} link set net1 up; ip -n {name}-peer link set host1 up"
        ));
        let mut network = Network::attach(&pod.path, Wiring { queues: 2, ..wiring }, soon()).await.unwrap();
        let nics: Vec<_> = network.nics().into_iter().map(|nic| (nic.id, nic.taps.len())).collect();
        assert_eq!(nics.len(), 2, "{wiring:?}");
        assert!(nics.iter().all(|(_, queues)| *queues == 2));
        assert_eq!(nics[1].0, "network-tap1_kata");
        let names: Vec<_> = network.interfaces().iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"eth0") && names.contains(&"net1"));
        network.detach(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn no_model_no_cards() {
    let pod = Pod::new();
    let before = pod.state();
    let wiring = Wiring { model: NetworkModel::None, ..TCFILTER };
    let mut network = Network::attach(&pod.path, wiring, soon()).await.unwrap();
    assert!(network.is_empty() && network.nics().is_empty());
    assert!(!network.rescan(soon()).await.unwrap());
    assert_eq!(pod.state(), before);
}

#[tokio::test]
async fn the_hosts_own_network_is_never_touched() {
    for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        let error = Network::attach(Path::new(path), TCFILTER, soon()).await.unwrap_err();
        assert!(matches!(error, NetworkError::Host { .. }), "{error:?}");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(cleanup(Path::new(path), soon()).await.is_err());
    }
}

#[tokio::test]
async fn what_is_no_namespace_is_an_error_with_its_cause() {
    let error = Network::attach(Path::new("/run/netns/osct-absent"), TCFILTER, soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let error = Network::attach(Path::new("/etc/hostname"), TCFILTER, soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}
