//! The two rings of the device and what moves over them.
//!
//! The guest writes the rings and the packets. Every length, address and index
//! is checked where it is used: by `virtio-queue` for the ring itself, here for
//! chains. One pass takes a bounded number of chains, so that a guest which
//! never stops talking cannot keep the host from being heard.

use std::{fs::File, io::Write};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::{
    packet::{FromGuest, HEADER, MAX_PAYLOAD},
    switch::Switch,
};

/// Most entries of a ring; what QEMU offers its drivers.
pub const RING_SIZE: u16 = 1024;

/// Chains one pass takes.
const CHAINS: usize = 256;

/// Memory segments of one chain; Linux uses at most 19.
const SEGMENTS: usize = 64;

/// A chain's header and ring entries lie in a page of their own, more or less.
const PAGE: usize = 4096;

type Chain<'a> = DescriptorChain<&'a GuestMemoryMmap>;
type RingError = virtio_queue::Error;

/// What a pass over a ring came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Guest memory touched, roughly; zero when no chain was given back.
    pub touched: usize,
    /// The pass ended because it was long, not because there was no more to do.
    pub more: bool,
}

/// Room for one packet, reused for all.
pub struct Scratch(Box<[u8]>);

impl Scratch {
    /// Memory is not touched before it is used.
    pub fn new() -> Self {
        Self(vec![0; HEADER + MAX_PAYLOAD].into_boxed_slice())
    }
}

/// One ring and the guest's doorbell.
pub struct Ring {
    /// Addresses and positions.
    pub queue: Queue,
    /// Written to interrupt the guest.
    pub call: Option<File>,
    /// The guest's side may be read and written.
    pub enabled: bool,
}

impl Ring {
    /// A ring the guest has not set up yet.
    ///
    /// # Errors
    /// None with a [`RING_SIZE`] that is a power of two.
    pub fn new() -> Result<Self, RingError> {
        Ok(Self { queue: Queue::new(RING_SIZE)?, call: None, enabled: false })
    }

    /// Whether the ring may be used.
    pub fn live(&self) -> bool {
        self.enabled && self.queue.ready()
    }

    /// Interrupts the guest if it wants to be.
    fn ring(&mut self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        if self.queue.needs_notification(memory)?
            && let Some(call) = &mut self.call
        {
            // An event descriptor: fails only when its counter is full, and then the guest is being told already.
            let _ = call.write(&1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Takes packets of the guest off its transmit ring.
    ///
    /// # Errors
    /// The ring itself is broken; nothing on it can be used before the driver
    /// starts anew.
    pub fn take(
        &mut self,
        memory: &GuestMemoryMmap,
        switch: &mut Switch,
        scratch: &mut Scratch,
    ) -> Result<Pass, RingError> {
        let mut pass = Pass::default();
        for _ in 0..CHAINS {
            if switch.saturated() {
                return self.finish(memory, pass);
            }
            let Some(chain) = next_chain(&mut self.queue, memory)? else {
                if self.queue.enable_notification(memory)? {
                    continue;
                }
                return self.finish(memory, pass);
            };
            let head = chain.head_index();
            if let Some((header, payload)) = read_packet(chain, memory, &mut scratch.0) {
                switch.receive(&header, payload);
                pass.touched += payload.len();
            }
            self.queue.add_used(memory, head, 0)?;
            pass.touched += PAGE;
        }
        pass.more = true;
        self.finish(memory, pass)
    }

    /// Puts packets for the guest onto its receive ring.
    ///
    /// # Errors
    /// As for [`Ring::take`].
    pub fn give(
        &mut self,
        memory: &GuestMemoryMmap,
        switch: &mut Switch,
        scratch: &mut Scratch,
    ) -> Result<Pass, RingError> {
        let mut pass = Pass::default();
        for _ in 0..CHAINS {
            if !switch.has_packets() {
                return self.finish(memory, pass);
            }
            let Some(chain) = next_chain(&mut self.queue, memory)? else {
                if self.queue.enable_notification(memory)? {
                    continue;
                }
                return self.finish(memory, pass);
            };
            let head = chain.head_index();
            let room = capacity(chain.clone()).min(scratch.0.len());
            let written = if room < HEADER {
                // No use to anybody: given back empty.
                0
            } else if let Some(len) = switch.next_packet(&mut scratch.0[..room]) {
                write_packet(chain, memory, &scratch.0[..len])
            } else {
                self.queue.go_to_previous_position();
                return self.finish(memory, pass);
            };
            self.queue.add_used(memory, head, written as u32)?;
            pass.touched += PAGE + written;
        }
        pass.more = true;
        self.finish(memory, pass)
    }

    fn finish(&mut self, memory: &GuestMemoryMmap, pass: Pass) -> Result<Pass, RingError> {
        if pass.touched > 0 {
            self.ring(memory)?;
        }
        Ok(pass)
    }
}

fn next_chain<'a>(queue: &mut Queue, memory: &'a GuestMemoryMmap) -> Result<Option<Chain<'a>>, RingError> {
    Ok(queue.iter(memory)?.next())
}

/// Copies a packet out of guest memory; `None` when it is no packet for us.
fn read_packet<'b>(chain: Chain<'_>, memory: &GuestMemoryMmap, scratch: &'b mut [u8]) -> Option<(FromGuest, &'b [u8])> {
    let mut filled = 0;
    for segment in chain.readable().take(SEGMENTS) {
        let len = (segment.len() as usize).min(scratch.len() - filled);
        memory.read_slice(&mut scratch[filled..filled + len], segment.addr()).ok()?;
        filled += len;
    }
    let (head, payload) = scratch[..filled].split_first_chunk::<HEADER>()?;
    let header = FromGuest::decode(head)?;
    let payload = payload.get(..header.len as usize);
    match payload {
        Some(payload) => Some((header, payload)),
        // More is promised than there is: an operation that does not exist ends the connection.
        None => Some((FromGuest { op: None, ..header }, &[])),
    }
}

fn capacity(chain: Chain<'_>) -> usize {
    chain.writable().take(SEGMENTS).map(|segment| segment.len() as usize).sum()
}

/// Copies a packet into guest memory and returns how much of it went there.
fn write_packet(chain: Chain<'_>, memory: &GuestMemoryMmap, packet: &[u8]) -> usize {
    let mut written = 0;
    for segment in chain.writable().take(SEGMENTS) {
        let len = (segment.len() as usize).min(packet.len() - written);
        if memory.write_slice(&packet[written..written + len], segment.addr()).is_err() {
            break;
        }
        written += len;
    }
    written
}
