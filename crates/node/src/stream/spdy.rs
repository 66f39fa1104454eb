//! SPDY/3.1 frames, as far as a client of Kubernetes' streaming protocol needs
//! them (draft-mbelshe-httpbis-spdy-00, section 2; no flow control, as its
//! servers have none).
//!
//! Header blocks must be zlib streams primed with a dictionary. Stored blocks
//! are valid zlib and refer to no dictionary byte, so nothing is compressed and
//! the dictionary itself is not needed; blocks we receive are skipped.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Last frame of a stream in this direction.
const FIN: u8 = 1;
/// Control frames we read are far smaller; more is an attack or a bug.
const MAX_CONTROL: u32 = 1 << 16;
/// Length of every frame's first part.
const HEAD: usize = 8;

const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;

/// zlib header with preset dictionary (RFC 1950): CMF 0x78, FLG with FDICT, then
/// the Adler-32 of the SPDY/3 dictionary.
const ZLIB_HEADER: [u8; 6] = [0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2];
/// An empty stored block makes the receiver hand out what it has (RFC 1951, 3.2.4).
const SYNC_FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Encodes frames of one connection. Header blocks share one zlib stream, whose
/// header goes out once.
#[derive(Debug, Default)]
pub struct Encoder {
    zlib_begun: bool,
}

impl Encoder {
    /// Opens stream `id` (odd, rising) with one header.
    pub fn open(&mut self, id: u32, name: &str, value: &str) -> Vec<u8> {
        let mut pairs = 1_u32.to_be_bytes().to_vec();
        for text in [name, value] {
            pairs.extend((text.len() as u32).to_be_bytes());
            pairs.extend(text.as_bytes());
        }
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0; 6]); // associated stream, priority, slot
        if !std::mem::replace(&mut self.zlib_begun, true) {
            body.extend(ZLIB_HEADER);
        }
        let length = pairs.len() as u16;
        body.push(0);
        body.extend(length.to_le_bytes());
        body.extend((!length).to_le_bytes());
        body.extend(pairs);
        body.extend(SYNC_FLUSH);
        control(SYN_STREAM, &body)
    }
}

/// A data frame; `payload` may be at most 16 MiB less one byte long.
pub fn data(stream: u32, payload: &[u8], last: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend(stream.to_be_bytes());
    frame.extend(flags_and_length(u8::from(last) * FIN, payload.len()));
    frame.extend(payload);
    frame
}

/// The answer to a ping is the same ping.
pub fn pong(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.extend(kind.to_be_bytes());
    frame.extend(flags_and_length(0, body.len()));
    frame.extend(body);
    frame
}

fn flags_and_length(flags: u8, length: usize) -> [u8; 4] {
    (u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff)).to_be_bytes()
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// `length` bytes for `stream` follow; the caller reads them.
    Data {
        /// The stream.
        stream: u32,
        /// How many bytes follow.
        length: u32,
        /// Whether these are the stream's last.
        last: bool,
    },
    /// The stream was refused or broken off.
    Reset {
        /// The stream.
        stream: u32,
    },
    /// To be answered with [`pong`].
    Ping(u32),
    /// No new streams; existing ones go on.
    GoAway,
    /// Nothing a client cares about.
    Other,
}

/// Reads the next frame; of a data frame only its head. `None` at the end of the
/// connection. Not cancel-safe.
///
/// # Errors
/// When the connection breaks or the peer does not speak SPDY/3.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let [first, second] = [&head[..4], &head[4..]].map(|part| u32::from_be_bytes([part[0], part[1], part[2], part[3]]));
    let length = second & 0x00ff_ffff;
    if first >> 31 == 0 {
        return Ok(Some(Frame::Data { stream: first, length, last: head[4] & FIN != 0 }));
    }
    if first >> 16 != 0x8003 || length > MAX_CONTROL {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a SPDY/3 control frame"));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    let id = body.first_chunk().map(|id| u32::from_be_bytes(*id)).unwrap_or_default();
    Ok(Some(match first as u16 {
        RST_STREAM => Frame::Reset { stream: id },
        PING => Frame::Ping(id),
        GO_AWAY => Frame::GoAway,
        _ => Frame::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zlib_header_is_valid() {
        assert_eq!(u16::from_be_bytes([ZLIB_HEADER[0], ZLIB_HEADER[1]]) % 31, 0);
    }

    #[test]
    fn only_the_first_block_begins_the_zlib_stream() {
        let mut encoder = Encoder::default();
        let (first, second) = (encoder.open(1, "streamtype", "error"), encoder.open(3, "streamtype", "error"));
        assert_eq!(first.len(), second.len() + ZLIB_HEADER.len());
        assert_eq!(&first[..4], [0x80, 3, 0, 1]);
        assert_eq!(first[18..24], ZLIB_HEADER);
        assert!(second.ends_with(&SYNC_FLUSH));
    }

    #[tokio::test]
    async fn frames_are_read_back() {
        let mut wire = data(5, b"hi", true);
        wire.truncate(HEAD);
        wire.extend(pong(7));
        wire.extend(control(RST_STREAM, &[0, 0, 0, 3, 0, 0, 0, 1]));
        wire.extend(control(GO_AWAY, &[0; 8]));
        wire.extend(control(2, &[0; 12]));
        let mut from = wire.as_slice();
        let mut frames = Vec::new();
        while let Some(frame) = read(&mut from).await.expect("frame") {
            frames.push(frame);
        }
        let want = [
            Frame::Data { stream: 5, length: 2, last: true },
            Frame::Ping(7),
            Frame::Reset { stream: 3 },
            Frame::GoAway,
            Frame::Other,
        ];
        assert_eq!(frames, want);
    }

    #[tokio::test]
    async fn what_is_not_spdy_is_refused() {
        for wire in [&b"HTTP/1.1 400"[..], &[0x80, 2, 0, 1, 0, 0, 0, 0], &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]] {
            let result = read(&mut &wire[..]).await;
            let data = matches!(result, Ok(Some(Frame::Data { .. })));
            assert!(result.is_err() || (data && wire[0] == b'H'), "{wire:?}");
        }
        assert!(read(&mut &[0x80_u8, 3, 0][..]).await.is_err());
    }
}
