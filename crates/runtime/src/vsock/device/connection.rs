//! One connection between a host program and a port of the guest.
//!
//! ```text
//!  Greeting ──"CONNECT n"──► Asking ──REQUEST sent──► Requested ──RESPONSE──► Open
//!     │                        │                          │                    │
//!     └──── host gone ─────────┴──────► Closed ◄──RST─────┤        guest done, │
//!                                          ▲              │ host gone          ▼
//!                                          └── RST sent ──┴──► Resetting ◄── Draining
//! ```
//!
//! The host side is a Unix socket watched edge-triggered: a flag says what may
//! be tried, and is cleared when the kernel says "would block". Nothing is read
//! from the host before the guest has room for it, so the only bytes kept here
//! are the guest's, at most [`credit::BUFFER`](super::credit::BUFFER) of them.

use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;

use super::{
    credit::{Account, BUFFER},
    host::{Backlog, Host, Line, Received},
    packet::{FromGuest, MAX_PAYLOAD, NO_MORE_RECEIVE, NO_MORE_SEND, Op, Ports, ToGuest},
};

const BOTH: u32 = NO_MORE_RECEIVE | NO_MORE_SEND;

/// How far a connection has come.
#[derive(Debug)]
enum Phase {
    /// The host program has not said which port it wants.
    Greeting,
    /// The guest has not been asked, perhaps because it has no driver yet.
    Asking,
    /// The guest was asked and has not answered.
    Requested,
    /// Bytes flow.
    Open(Open),
    /// The guest is done; what it sent last is still on its way to the host.
    Draining { backlog: Backlog, reset: bool },
    /// The guest has to be told that this is over.
    Resetting,
    /// Nothing is left to do.
    Closed,
}

#[derive(Debug, Default)]
struct Open {
    account: Account,
    backlog: Backlog,
    /// Shutdown flags the guest sent.
    guest: u32,
    /// Shutdown flags the guest was sent.
    told: u32,
    /// The host program will send no more.
    host_ended: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    host: Host,
    ports: Ports,
    phase: Phase,
    /// Whether it stands in the line for a place on the ring.
    pub queued: bool,
}

impl Connection {
    /// A connection whose host program still has to name the guest's port.
    pub fn new(stream: UnixStream, host_port: u32) -> Self {
        Self {
            host: Host::new(stream),
            ports: Ports { host: host_port, guest: 0 },
            phase: Phase::Greeting,
            queued: false,
        }
    }

    /// Whether the connection is over and can be dropped.
    pub fn closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether [`Connection::next_packet`] may have something to send.
    pub fn has_work(&self) -> bool {
        match &self.phase {
            Phase::Asking | Phase::Resetting => true,
            Phase::Open(open) => open.has_work(&self.host),
            _ => false,
        }
    }

    /// Takes in what the host program's socket reports.
    pub fn host_event(&mut self, events: EpollFlags) {
        self.host.event(events);
        let gone = self.host.gone;
        match &mut self.phase {
            Phase::Greeting => self.read_greeting(),
            Phase::Asking if gone => self.phase = Phase::Closed,
            Phase::Requested if gone => self.phase = Phase::Resetting,
            Phase::Open(open) => open.flush(&mut self.host),
            Phase::Draining { .. } => self.drain(),
            Phase::Asking | Phase::Requested | Phase::Resetting | Phase::Closed => {}
        }
    }

    /// Whether the guest has been told of this connection under these ports.
    pub fn answers_to(&self, ports: Ports) -> bool {
        ports == self.ports && !matches!(self.phase, Phase::Greeting | Phase::Asking | Phase::Closed)
    }

    /// Takes in a packet of the guest for this connection.
    pub fn receive(&mut self, header: &FromGuest, payload: &[u8]) {
        match (&mut self.phase, header.op) {
            (Phase::Requested, Some(Op::Response)) => {
                let mut open = Open::default();
                open.account.hear(header.credit);
                // The buffer of a fresh socket takes a line.
                self.host.send(format!("OK {}\n", self.ports.host).as_bytes());
                self.phase = Phase::Open(open);
            }
            (Phase::Open(_), Some(Op::Reset)) => self.end(false),
            (Phase::Draining { reset, .. }, Some(Op::Reset)) => *reset = false,
            (_, Some(Op::Reset)) => self.phase = Phase::Closed,
            (Phase::Open(open), Some(op)) => {
                open.account.hear(header.credit);
                match open.receive(op, header.flags, payload, &mut self.host) {
                    Verdict::GoesOn => {}
                    Verdict::Done => self.end(true),
                    Verdict::Violation => self.phase = Phase::Resetting,
                }
            }
            (Phase::Draining { .. } | Phase::Resetting | Phase::Closed, _) => {}
            (Phase::Greeting | Phase::Asking | Phase::Requested | Phase::Open(_), _) => self.phase = Phase::Resetting,
        }
    }

    /// The next packet for the guest, with at most `data.len()` bytes of payload
    /// put into `data`.
    pub fn next_packet(&mut self, data: &mut [u8]) -> Option<ToGuest> {
        match &mut self.phase {
            Phase::Asking => {
                self.phase = Phase::Requested;
                let credit = Account::default().tell();
                Some(ToGuest { credit, ..ToGuest::bare(self.ports, Op::Request) })
            }
            Phase::Resetting => {
                self.phase = Phase::Closed;
                Some(ToGuest::bare(self.ports, Op::Reset))
            }
            Phase::Open(open) => {
                let packet = open.next_packet(self.ports, &mut self.host, data);
                // Told to both sides: a late packet of the guest gets the RST of any stranger.
                if open.told == BOTH {
                    self.phase = Phase::Closed;
                }
                packet
            }
            _ => None,
        }
    }

    /// The guest's driver began anew and knows of nothing.
    pub fn driver_started(&mut self) {
        match self.phase {
            Phase::Greeting | Phase::Asking => {}
            Phase::Requested => self.phase = Phase::Asking,
            _ => self.phase = Phase::Closed,
        }
    }

    /// Ends an open connection once everything the guest sent is delivered.
    fn end(&mut self, reset: bool) {
        if let Phase::Open(open) = &mut self.phase {
            self.phase = Phase::Draining { backlog: std::mem::take(&mut open.backlog), reset };
            self.drain();
        }
    }

    fn drain(&mut self) {
        if let Phase::Draining { backlog, reset } = &mut self.phase {
            backlog.flush(&mut self.host);
            if backlog.is_empty() || self.host.gone {
                self.phase = if *reset { Phase::Resetting } else { Phase::Closed };
            }
        }
    }

    fn read_greeting(&mut self) {
        self.phase = match self.host.read_line() {
            Line::Unfinished => return,
            Line::Is(line) => match wanted_port(&line) {
                Some(port) => {
                    self.ports.guest = port;
                    Phase::Asking
                }
                None => Phase::Closed,
            },
            Line::Never => Phase::Closed,
        };
    }
}

fn wanted_port(line: &[u8]) -> Option<u32> {
    let (word, port) = std::str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
    if word.eq_ignore_ascii_case("connect") { port.parse().ok() } else { None }
}

enum Verdict {
    GoesOn,
    Done,
    Violation,
}

impl Open {
    fn has_work(&self, host: &Host) -> bool {
        self.account.owes() || self.shutdown_to_tell(host) != 0 || (self.wants_host(host) && self.can_ask_or_send())
    }

    fn can_ask_or_send(&self) -> bool {
        self.account.room() > 0 || self.account.may_ask()
    }

    /// Whether bytes of the host program may be there and have somewhere to go.
    fn wants_host(&self, host: &Host) -> bool {
        host.readable && !self.host_ended && self.guest & NO_MORE_RECEIVE == 0
    }

    /// Shutdown flags the guest should have been sent and was not.
    fn shutdown_to_tell(&self, host: &Host) -> u32 {
        // What the host program left behind is of no use to a guest that receives no more.
        let ended = self.host_ended || self.guest & NO_MORE_RECEIVE != 0;
        let due = match (ended, host.gone) {
            (true, true) => BOTH,
            (true, false) if self.host_ended => NO_MORE_SEND,
            _ => 0,
        };
        due & !self.told
    }

    fn receive(&mut self, op: Op, flags: u32, payload: &[u8], host: &mut Host) -> Verdict {
        match op {
            Op::Data => return self.deliver(payload, host),
            Op::CreditUpdate => {}
            Op::CreditRequest => self.account.ask(),
            Op::Shutdown => {
                self.guest |= flags & BOTH;
                self.flush(host);
                if self.guest == BOTH {
                    return Verdict::Done;
                }
            }
            Op::Request | Op::Response | Op::Reset => return Verdict::Violation,
        }
        Verdict::GoesOn
    }

    fn deliver(&mut self, payload: &[u8], host: &mut Host) -> Verdict {
        if self.guest & NO_MORE_SEND != 0 || self.backlog.len() + payload.len() > BUFFER {
            return Verdict::Violation;
        }
        let at_once = if self.backlog.is_empty() { host.send(payload) } else { 0 };
        self.account.consume(at_once);
        self.backlog.push(&payload[at_once..]);
        if host.gone {
            self.flush(host);
        }
        Verdict::GoesOn
    }

    /// Moves what is kept to the host program, and the end behind it.
    fn flush(&mut self, host: &mut Host) {
        self.account.consume(self.backlog.flush(host));
        if self.backlog.is_empty() && self.guest & NO_MORE_SEND != 0 {
            host.end();
        }
    }

    fn next_packet(&mut self, ports: Ports, host: &mut Host, data: &mut [u8]) -> Option<ToGuest> {
        if self.wants_host(host) {
            let room = self.account.room().min(data.len()).min(MAX_PAYLOAD);
            if room > 0 {
                match host.receive(&mut data[..room]) {
                    Received::Bytes(len) => {
                        self.account.spend(len);
                        let credit = self.account.tell();
                        return Some(ToGuest { len: len as u32, credit, ..ToGuest::bare(ports, Op::Data) });
                    }
                    Received::Nothing => {}
                    Received::End => self.host_ended = true,
                }
            } else if self.account.may_ask() {
                self.account.asked_guest();
                return Some(ToGuest { credit: self.account.tell(), ..ToGuest::bare(ports, Op::CreditRequest) });
            }
        }
        let flags = self.shutdown_to_tell(host);
        if flags != 0 {
            self.told |= flags;
            return Some(ToGuest {
                flags: self.told,
                credit: self.account.tell(),
                ..ToGuest::bare(ports, Op::Shutdown)
            });
        }
        if self.account.owes() {
            return Some(ToGuest { credit: self.account.tell(), ..ToGuest::bare(ports, Op::CreditUpdate) });
        }
        None
    }
}
