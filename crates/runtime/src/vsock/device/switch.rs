//! All connections of a device, and the line in which they wait for the ring.
//!
//! Knows nothing of rings: packets of the guest go in, packets for the guest
//! come out. The guest is the attacker here. It cannot open connections, so
//! their number is the host's; what is owed to strangers is bounded by not
//! taking more packets while [`Switch::saturated`].

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::unix::net::UnixStream,
    sync::Arc,
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::{
    connection::Connection,
    packet::{FromGuest, HEADER, Op, Ports, ToGuest},
};

/// Connections at once; a sandbox with a hundred containers uses some hundreds.
pub const CONNECTIONS: usize = 1024;

/// Answers to strangers kept for a guest that offers no place on its ring.
const STRANGERS: usize = 128;

/// Host ports count up from here, far from those programs choose, and repeat
/// only after 2³² connections.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Events a host socket is watched for.
fn watched() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET
}

/// The connections of one device.
#[derive(Debug)]
pub struct Switch {
    epoll: Arc<Epoll>,
    connections: HashMap<u32, Connection>,
    /// Host ports of the connections that may have a packet, each once.
    line: VecDeque<u32>,
    /// Ends the guest spoke to and nobody knows.
    strangers: VecDeque<Ports>,
    next_port: u32,
}

impl Switch {
    /// No connections yet; those to come are watched by `epoll`, with their
    /// host port as token.
    pub fn new(epoll: Arc<Epoll>) -> Self {
        Self {
            epoll,
            connections: HashMap::new(),
            line: VecDeque::new(),
            strangers: VecDeque::new(),
            next_port: FIRST_HOST_PORT,
        }
    }

    /// Takes on a host program.
    ///
    /// # Errors
    /// `QuotaExceeded` beyond [`CONNECTIONS`], or what the kernel says to
    /// watching one more descriptor; the program then sees its socket closed.
    pub fn accept(&mut self, stream: UnixStream) -> io::Result<()> {
        if self.connections.len() >= CONNECTIONS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let port = self.free_port();
        self.epoll.add(&stream, EpollEvent::new(watched(), u64::from(port)))?;
        self.connections.insert(port, Connection::new(stream, port));
        Ok(())
    }

    fn free_port(&mut self) -> u32 {
        // Ends: there are fewer connections than ports.
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.connections.contains_key(&port) {
                return port;
            }
        }
    }

    /// Takes in what a host program's socket reports.
    pub fn host_event(&mut self, port: u32, events: EpollFlags) {
        if let Some(connection) = self.connections.get_mut(&port) {
            connection.host_event(events);
            self.settle(port);
        }
    }

    /// Takes in a packet of the guest.
    pub fn receive(&mut self, header: &FromGuest, payload: &[u8]) {
        let port = header.ports.host;
        match self.connections.get_mut(&port) {
            Some(connection) if connection.answers_to(header.ports) => {
                connection.receive(header, payload);
                self.settle(port);
            }
            _ if header.op == Some(Op::Reset) => {}
            _ => self.strangers.push_back(header.ports),
        }
    }

    /// Whether the guest must take packets before more of its own are read.
    pub fn saturated(&self) -> bool {
        self.strangers.len() >= STRANGERS
    }

    /// Whether [`Switch::next_packet`] may have one.
    pub fn has_packets(&self) -> bool {
        !self.line.is_empty() || !self.strangers.is_empty()
    }

    /// Puts the next packet for the guest into `buffer` and returns its length;
    /// `buffer` holds a header at least. Connections take turns.
    pub fn next_packet(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let (head, data) = buffer.split_at_mut_checked(HEADER)?;
        if let Some(ports) = self.strangers.pop_front() {
            head.copy_from_slice(&ToGuest::bare(ports, Op::Reset).encode());
            return Some(HEADER);
        }
        while let Some(port) = self.line.pop_front() {
            let Some(connection) = self.connections.get_mut(&port) else { continue };
            connection.queued = false;
            let packet = connection.next_packet(data);
            self.settle(port);
            if let Some(packet) = packet {
                head.copy_from_slice(&packet.encode());
                return Some(HEADER + packet.len as usize);
            }
        }
        None
    }

    /// The guest's driver began anew: what was open is over, what was asked is
    /// asked again.
    pub fn driver_started(&mut self) {
        self.strangers.clear();
        let ports: Vec<u32> = self.connections.keys().copied().collect();
        for port in ports {
            if let Some(connection) = self.connections.get_mut(&port) {
                connection.driver_started();
                self.settle(port);
            }
        }
    }

    /// The guest's driver broke the rules of the ring: nothing can be said to
    /// it, so everything it takes part in is over.
    pub fn driver_broken(&mut self) {
        self.connections.clear();
        self.line.clear();
        self.strangers.clear();
    }

    /// Drops a connection that is over, or gives it its place in the line.
    fn settle(&mut self, port: u32) {
        let Some(connection) = self.connections.get_mut(&port) else { return };
        if connection.closed() {
            self.connections.remove(&port);
        } else if connection.has_work() && !connection.queued {
            connection.queued = true;
            self.line.push_back(port);
        }
    }

    /// Connections that exist.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.connections.len()
    }
}
