//! Packets over rings in memory, with a driver of our own.

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    super::{
        packet::tests::guest_bytes,
        ring::{Ring, Scratch},
    },
    *,
};

/// Entries of each ring; small, so that it wraps often.
const SIZE: u16 = 8;
const WRITE: u16 = 2;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// Memory of the guest: two rings and a buffer for each descriptor.
const BASES: [u64; 2] = [0x1000, 0x3000];
const BUFFERS: [u64; 2] = [0x10_0000, 0x20_0000];
const BUFFER_LEN: u64 = 0x1_1000;
pub const MEMORY: usize = 4 << 20;

/// Address, length and flags.
type Descriptor = (u64, u32, u16);

/// The driver's side of one ring: descriptors, then available, then used.
struct Side {
    base: u64,
    buffers: u64,
    available: u16,
    used: u16,
}

impl Side {
    fn put(&mut self, memory: &GuestMemoryMmap, descriptors: &[Descriptor], head: u16) {
        for (i, (address, len, flags)) in descriptors.iter().enumerate() {
            let at = GuestAddress(self.base + u64::from((head + i as u16) % SIZE) * 16);
            memory.write_obj(*address, at).unwrap();
            memory.write_obj(*len, GuestAddress(at.0 + 8)).unwrap();
            memory.write_obj(*flags, GuestAddress(at.0 + 12)).unwrap();
            memory.write_obj((head + i as u16 + 1) % SIZE, GuestAddress(at.0 + 14)).unwrap();
        }
        let slot = self.base + 0x400 + 4 + u64::from(self.available % SIZE) * 2;
        memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_obj(self.available, GuestAddress(self.base + 0x402)).unwrap();
    }

    /// Head and length of the next chain the device gave back.
    fn take(&mut self, memory: &GuestMemoryMmap) -> Option<(u16, u32)> {
        let used: u16 = memory.read_obj(GuestAddress(self.base + 0x802)).unwrap();
        if used == self.used {
            return None;
        }
        let slot = self.base + 0x804 + u64::from(self.used % SIZE) * 8;
        self.used = self.used.wrapping_add(1);
        let head: u32 = memory.read_obj(GuestAddress(slot)).unwrap();
        Some((head as u16, memory.read_obj(GuestAddress(slot + 4)).unwrap()))
    }

    fn buffer(&self, head: u16) -> u64 {
        self.buffers + u64::from(head) * BUFFER_LEN
    }
}

/// A bench whose guest speaks by rings.
struct Wired {
    bench: Bench,
    memory: GuestMemoryMmap,
    receive: (Ring, Side),
    transmit: (Ring, Side),
    scratch: Scratch,
    next_head: u16,
}

fn ring(index: usize, event_index: bool) -> (Ring, Side) {
    let base = BASES[index];
    let mut ring = Ring::new().unwrap();
    set_up(&mut ring.queue, base);
    ring.queue.set_event_idx(event_index);
    ring.enabled = true;
    (ring, Side { base, buffers: BUFFERS[index], available: 0, used: 0 })
}

pub fn set_up(queue: &mut Queue, base: u64) {
    queue.set_size(SIZE);
    queue.try_set_desc_table_address(GuestAddress(base)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(base + 0x400)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(base + 0x800)).unwrap();
    queue.set_ready(true);
}

impl Wired {
    fn new(event_index: bool) -> Self {
        Self {
            bench: Bench::new(),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap(),
            receive: ring(0, event_index),
            transmit: ring(1, event_index),
            scratch: Scratch::new(),
            next_head: 0,
        }
    }

    /// Offers the device `count` places, each in two pieces.
    fn offer(&mut self, count: u16, len: u32) {
        let side = &mut self.receive.1;
        for _ in 0..count {
            let head = side.available % (SIZE / 2) * 2;
            let at = side.buffer(head);
            side.put(&self.memory, &[(at, HEADER as u32, WRITE | NEXT), (at + 0x100, len, WRITE)], head);
        }
    }

    /// Lets the device work until nothing moves.
    fn work(&mut self) {
        self.bench.settle();
        loop {
            let switch = &mut self.bench.switch;
            let taken = self.transmit.0.take(&self.memory, switch, &mut self.scratch).unwrap();
            let given = self.receive.0.give(&self.memory, switch, &mut self.scratch).unwrap();
            if taken.touched + given.touched == 0 {
                return;
            }
        }
    }

    /// What the guest received, its places offered again.
    fn received(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            self.work();
            let Some((head, len)) = self.receive.1.take(&self.memory) else { return seen };
            let at = self.receive.1.buffer(head);
            let mut bytes = vec![0; len as usize];
            self.memory.read_slice(&mut bytes[..HEADER], GuestAddress(at)).unwrap();
            self.memory.read_slice(&mut bytes[HEADER..], GuestAddress(at + 0x100)).unwrap();
            seen.push(Seen::decode(&bytes));
            self.offer(1, 4096);
        }
    }

    /// Sends a packet as a chain cut at `cuts`.
    fn send(&mut self, header: FromGuest, data: &[u8], cuts: &[usize]) {
        let mut bytes = guest_bytes(header).to_vec();
        bytes.extend(data);
        let head = self.next_head;
        let at = self.transmit.1.buffer(0) + u64::from(head) * BUFFER_LEN;
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        let mut edges = vec![0];
        edges.extend(cuts);
        edges.push(bytes.len());
        let last = edges.len() - 2;
        let pieces: Vec<_> = edges
            .windows(2)
            .enumerate()
            .map(|(i, edge)| (at + edge[0] as u64, (edge[1] - edge[0]) as u32, if i == last { 0 } else { NEXT }))
            .collect();
        self.transmit.1.put(&self.memory, &pieces, head);
        self.next_head = (head + pieces.len() as u16) % SIZE;
        self.work();
        assert!(self.transmit.1.take(&self.memory).is_some(), "packet was not taken");
    }
}

fn data(ports: Ports, len: usize) -> FromGuest {
    FromGuest { ports, op: Some(Op::Data), len: len as u32, flags: 0, credit: ROOMY }
}

#[test]
fn packets_of_any_shape_cross_rings_that_wrap() {
    for event_index in [false, true] {
        let mut wired = Wired::new(event_index);
        let mut program = wired.bench.dial(b"CONNECT 7\n");
        // Before the driver offers anything, nothing is lost.
        wired.work();
        wired.offer(SIZE / 2, 4096);
        let ports = wired.received()[0].ports;
        wired.send(FromGuest { op: Some(Op::Response), ..data(ports, 0) }, &[], &[]);
        drain(&mut program);

        let bytes = pattern(100_000);
        let shapes: [&[usize]; 5] = [&[], &[HEADER], &[10, 20, HEADER, 50], &[HEADER + 1], &[0, HEADER]];
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for (i, part) in bytes.chunks(1000).enumerate() {
            wired.send(data(ports, part.len()), part, shapes[i % shapes.len()]);
            program.write_all(part).unwrap();
            there.extend(drain(&mut program));
            for packet in wired.received() {
                back.extend(packet.data);
            }
        }
        assert!(there == bytes && back == bytes, "{event_index}: {} {}", there.len(), back.len());
    }
}

#[test]
fn packets_wait_for_places_and_strangers_for_answers() {
    let mut wired = Wired::new(true);
    let stranger = FromGuest { op: Some(Op::Request), ..data(Ports { host: 1, guest: 2 }, 0) };
    while !wired.bench.switch.saturated() {
        wired.send(stranger, &[], &[]);
    }
    // Now the device takes nothing before it can answer.
    let head = wired.next_head;
    let at = wired.transmit.1.buffer(0);
    wired.transmit.1.put(&wired.memory, &[(at, HEADER as u32, 0)], head);
    wired.work();
    assert!(wired.transmit.1.take(&wired.memory).is_none());
    wired.offer(SIZE / 2, 4096);
    let answers = wired.received();
    assert!(answers.iter().all(|packet| packet.op == Op::Reset));
    assert!(wired.transmit.1.take(&wired.memory).is_some());
}

#[test]
fn a_bad_chain_hurts_nobody_else() {
    let mut wired = Wired::new(true);
    wired.offer(SIZE / 2, 4096);
    let mut program = wired.bench.dial(b"CONNECT 7\n");
    let ports = wired.received()[0].ports;
    wired.send(FromGuest { op: Some(Op::Response), ..data(ports, 0) }, &[], &[]);
    drain(&mut program);

    let at = wired.transmit.1.buffer(0);
    let end = MEMORY as u64;
    let header = HEADER as u32;
    // The other connection these packets are about.
    let other = Ports { host: 1, guest: 1 };
    let rows: [(&str, &[Descriptor]); 11] = [
        ("no header", &[(at, 10, 0)]),
        ("nothing at all", &[(at, 0, 0)]),
        ("promises more than there is", &[(at, header, 0)]),
        ("address outside", &[(end, header, 0)]),
        ("reaches outside", &[(end - 10, header, 0)]),
        ("address wraps", &[(u64::MAX - 4, header, 0)]),
        ("length of 4 GiB", &[(at, u32::MAX, 0)]),
        (
            "circle",
            &[
                (at, header, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
                (at, 1, NEXT),
            ],
        ),
        ("only to be written", &[(at, header, WRITE)]),
        ("indirect of odd length", &[(at, 17, INDIRECT)]),
        ("indirect outside", &[(end, 32, INDIRECT)]),
    ];
    for (name, chain) in rows {
        wired.memory.write_slice(&guest_bytes(data(other, 1 << 31)), GuestAddress(at)).unwrap();
        wired.transmit.1.put(&wired.memory, chain, 0);
        wired.work();
        assert!(wired.transmit.1.take(&wired.memory).is_some(), "{name}: not given back");
        for answer in wired.received() {
            assert_eq!((answer.op, answer.ports), (Op::Reset, other), "{name}");
        }
        wired.next_head = 0;
        wired.send(data(ports, 2), b"ok", &[]);
        assert_eq!(drain(&mut program), b"ok", "{name}");
    }
}

#[test]
fn places_of_no_use_are_given_back_empty() {
    let mut wired = Wired::new(true);
    let mut program = wired.bench.dial(b"CONNECT 7\n");
    let at = wired.receive.1.buffer(0);
    for chain in [&[(at, 43, WRITE)][..], &[(at, 4096, 0)], &[(at, 0, WRITE)]] {
        wired.receive.1.put(&wired.memory, chain, 0);
        wired.work();
        assert_eq!(wired.receive.1.take(&wired.memory), Some((0, 0)), "{chain:?}");
    }
    // Outside memory the packet is lost, as the guest asked for; the program dials again after its time-out.
    wired.receive.1.put(&wired.memory, &[(MEMORY as u64 - 8, 4096, WRITE)], 0);
    wired.work();
    assert_eq!(wired.receive.1.take(&wired.memory), Some((0, 0)));
    assert!(!closed(&mut program));
}

#[test]
fn an_impossible_position_breaks_the_ring() {
    let mut wired = Wired::new(true);
    wired.memory.write_obj(SIZE + 1, GuestAddress(BASES[1] + 0x402)).unwrap();
    let switch = &mut wired.bench.switch;
    assert!(wired.transmit.0.take(&wired.memory, switch, &mut wired.scratch).is_err());
}
