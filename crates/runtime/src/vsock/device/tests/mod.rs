//! The device against a guest made of packets, a guest made of rings, and
//! guests that mean harm.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use super::{
    credit::BUFFER,
    packet::{Credit, FromGuest, HEADER, MAX_PAYLOAD, Op, Ports},
    switch::Switch,
};

mod fuzz;
mod protocol;
mod rings;

/// A guest with a buffer no test fills.
const ROOMY: Credit = Credit { buffer: 1 << 30, consumed: 0 };

/// A packet as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    op: Op,
    ports: Ports,
    flags: u32,
    credit: Credit,
    data: Vec<u8>,
}

impl Seen {
    fn decode(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let ops = [Op::Request, Op::Response, Op::Reset, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest];
        assert_eq!(u32_at(24) as usize, bytes.len() - HEADER);
        Self {
            op: ops.into_iter().find(|op| *op as u8 == bytes[30]).unwrap(),
            ports: Ports { host: u32_at(16), guest: u32_at(20) },
            flags: u32_at(32),
            credit: Credit { buffer: u32_at(36), consumed: u32_at(40) },
            data: bytes[HEADER..].to_vec(),
        }
    }
}

/// A switch with its host programs, and a guest that speaks in packets.
struct Bench {
    epoll: Arc<Epoll>,
    switch: Switch,
}

impl Bench {
    fn new() -> Self {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap());
        Self { switch: Switch::new(epoll.clone()), epoll }
    }

    /// A host program; everything it does is seen at the next [`Bench::settle`].
    fn dial(&mut self, greeting: &[u8]) -> UnixStream {
        let (mut program, device) = UnixStream::pair().unwrap();
        program.set_nonblocking(true).unwrap();
        self.switch.accept(device).unwrap();
        program.write_all(greeting).unwrap();
        program
    }

    /// Lets the switch see what host programs did.
    fn settle(&mut self) {
        // An answer to an event may be an event; an endless chain of them would be a busy loop.
        for _ in 0..1000 {
            let mut events = [EpollEvent::empty(); 16];
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
            if count == 0 {
                return;
            }
            for event in &events[..count] {
                self.switch.host_event(event.data() as u32, event.events());
            }
        }
        panic!("the device causes its own events");
    }

    /// What the guest gets now.
    fn packets(&mut self) -> Vec<Seen> {
        self.settle();
        let mut buffer = vec![0; HEADER + MAX_PAYLOAD];
        let mut seen = Vec::new();
        while let Some(len) = self.switch.next_packet(&mut buffer) {
            seen.push(Seen::decode(&buffer[..len]));
        }
        seen
    }

    /// The only packet the guest gets now.
    #[track_caller]
    fn packet(&mut self) -> Seen {
        let mut packets = self.packets();
        assert_eq!(packets.len(), 1, "{packets:?}");
        packets.remove(0)
    }

    fn ops(&mut self) -> Vec<Op> {
        self.packets().into_iter().map(|packet| packet.op).collect()
    }

    /// The guest sends a packet.
    fn send(&mut self, ports: Ports, op: Op, flags: u32, credit: Credit, data: &[u8]) {
        let header = FromGuest { ports, op: Some(op), len: data.len() as u32, flags, credit };
        self.switch.receive(&header, data);
    }

    fn data(&mut self, ports: Ports, data: &[u8]) {
        self.send(ports, Op::Data, 0, ROOMY, data);
    }

    /// A program and the guest, connected, the greeting read.
    fn connected(&mut self, guest: Credit) -> (UnixStream, Ports) {
        let mut program = self.dial(b"CONNECT 1024\n");
        let ports = self.packet().ports;
        self.send(ports, Op::Response, 0, guest, &[]);
        let ok = format!("OK {}\n", ports.host);
        let mut line = vec![0; ok.len()];
        program.read_exact(&mut line).unwrap();
        assert_eq!(line, ok.as_bytes());
        assert!(self.ops().iter().all(|op| *op == Op::CreditRequest));
        (program, ports)
    }
}

/// Whether the program's socket was closed; it must have nothing to read.
fn closed(program: &mut UnixStream) -> bool {
    match program.read(&mut [0; 1]) {
        Ok(0) => true,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
        // The device closed a socket that held unread bytes.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
        other => panic!("{other:?}"),
    }
}

/// Everything the program can read now.
fn drain(program: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    match program.read_to_end(&mut all) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => panic!("{error}"),
        _ => all,
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 / 7) as u8).collect()
}
