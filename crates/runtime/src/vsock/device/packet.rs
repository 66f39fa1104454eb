//! Packet headers of virtio-vsock (virtio 1.2, section 5.10.6).

/// Bytes of a header on the ring.
pub const HEADER: usize = 44;

/// Most payload bytes one packet carries; what the Linux driver sends at most.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// Context identifier of the host.
pub const HOST_CID: u64 = 2;

/// Context identifier of the guest. The device serves one guest, so every guest
/// has the same.
pub const GUEST_CID: u64 = 3;

/// Stream sockets, the only type offered.
const TYPE_STREAM: u16 = 1;

/// In `flags` of [`Op::Shutdown`]: the sender will receive no more.
pub const NO_MORE_RECEIVE: u32 = 1;
/// In `flags` of [`Op::Shutdown`]: the sender will send no more.
pub const NO_MORE_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Ask for a connection.
    Request = 1,
    /// Accept one.
    Response = 2,
    /// End one at once, or refuse it.
    Reset = 3,
    /// Close one or both directions.
    Shutdown = 4,
    /// Carry bytes.
    Data = 5,
    /// Tell how much was consumed.
    CreditUpdate = 6,
    /// Ask for [`Op::CreditUpdate`].
    CreditRequest = 7,
}

impl Op {
    fn of(value: u16) -> Option<Self> {
        [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::CreditUpdate,
            Self::CreditRequest,
        ]
        .into_iter()
        .find(|op| *op as u16 == value)
    }
}

/// The two ends of a connection; together they name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Chosen by this device.
    pub host: u32,
    /// Where something in the guest listens.
    pub guest: u32,
}

/// How much one side holds and has consumed, carried by every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Receive buffer in bytes.
    pub buffer: u32,
    /// Bytes taken out of it since the connection began, wrapping.
    pub consumed: u32,
}

/// A header received from the guest and found addressed to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromGuest {
    /// The connection.
    pub ports: Ports,
    /// `None` is an operation or a socket type that does not exist here.
    pub op: Option<Op>,
    /// Payload bytes that follow.
    pub len: u32,
    /// Meaning depends on `op`.
    pub flags: u32,
    /// The guest's buffer.
    pub credit: Credit,
}

impl FromGuest {
    /// Decodes a header; `None` when it names other ends than this guest and
    /// this host.
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if (u64_at(0), u64_at(8)) != (GUEST_CID, HOST_CID) {
            return None;
        }
        Some(Self {
            ports: Ports { guest: u32_at(16), host: u32_at(20) },
            len: u32_at(24),
            op: if u16_at(28) == TYPE_STREAM { Op::of(u16_at(30)) } else { None },
            flags: u32_at(32),
            credit: Credit { buffer: u32_at(36), consumed: u32_at(40) },
        })
    }
}

/// A header for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToGuest {
    /// The connection.
    pub ports: Ports,
    /// What the packet is for.
    pub op: Op,
    /// Payload bytes that follow.
    pub len: u32,
    /// Meaning depends on `op`.
    pub flags: u32,
    /// Our buffer.
    pub credit: Credit,
}

impl ToGuest {
    /// A packet without payload, flags and credit.
    pub fn bare(ports: Ports, op: Op) -> Self {
        Self { ports, op, len: 0, flags: 0, credit: Credit::default() }
    }

    /// The header as bytes of the ring.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &HOST_CID.to_le_bytes());
        put(8, &GUEST_CID.to_le_bytes());
        put(16, &self.ports.host.to_le_bytes());
        put(20, &self.ports.guest.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &TYPE_STREAM.to_le_bytes());
        put(30, &(self.op as u16).to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.credit.buffer.to_le_bytes());
        put(40, &self.credit.consumed.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The bytes a guest would send.
    pub fn guest_bytes(header: FromGuest) -> [u8; HEADER] {
        let op = header.op.map_or(0, |op| op as u16);
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&GUEST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[16..20].copy_from_slice(&header.ports.guest.to_le_bytes());
        bytes[20..24].copy_from_slice(&header.ports.host.to_le_bytes());
        bytes[24..28].copy_from_slice(&header.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&TYPE_STREAM.to_le_bytes());
        bytes[30..32].copy_from_slice(&op.to_le_bytes());
        bytes[32..36].copy_from_slice(&header.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&header.credit.buffer.to_le_bytes());
        bytes[40..44].copy_from_slice(&header.credit.consumed.to_le_bytes());
        bytes
    }

    /// The same fields whichever way they travel: byte layout of the standard.
    #[test]
    fn layout_is_that_of_the_standard() {
        let header = ToGuest {
            ports: Ports { host: 0x0102_0304, guest: 1024 },
            op: Op::Shutdown,
            len: 7,
            flags: 3,
            credit: Credit { buffer: 0x40000, consumed: 9 },
        };
        let want = [
            2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 4, 0, 0, 7, 0, 0, 0, 1, 0, 4, 0, 3, 0, 0, 0,
            0, 0, 4, 0, 9, 0, 0, 0,
        ];
        assert_eq!(header.encode(), want);

        let back = FromGuest {
            ports: Ports { host: 5, guest: 6 },
            op: Some(Op::Data),
            len: 1,
            flags: 2,
            credit: Credit { buffer: 3, consumed: 4 },
        };
        assert_eq!(FromGuest::decode(&guest_bytes(back)), Some(back));
    }

    #[test]
    fn strangers_and_unknown_operations_are_told_apart() {
        let header = FromGuest {
            ports: Ports { host: 5, guest: 6 },
            op: Some(Op::Request),
            len: 0,
            flags: 0,
            credit: Credit::default(),
        };
        let good = guest_bytes(header);
        // (byte to change, new value, what becomes of the packet)
        let rows = [
            (0, 4, None),
            (8, 3, None),
            (15, 1, None),
            (28, 2, Some(None)),
            (30, 0, Some(None)),
            (30, 8, Some(None)),
            (31, 1, Some(None)),
            (30, 7, Some(Some(Op::CreditRequest))),
        ];
        for (at, value, want) in rows {
            let mut bytes = good;
            bytes[at] = value;
            assert_eq!(FromGuest::decode(&bytes).map(|h| h.op), want, "byte {at} = {value}");
        }
    }
}
