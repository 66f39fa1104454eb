//! Guest memory as sparse files: what was never touched is a hole.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{fd::AsFd, unix::fs::FileExt},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

/// Pieces that are dropped when they are all zero. Smaller ones would save little and
/// make many extents.
const PIECE: usize = 16 << 10;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Copies what is not zero of `from` to the empty file `to`, and returns how many bytes
/// that were.
///
/// # Errors
/// I/O errors, `QuotaExceeded` for more than `most` bytes.
pub(super) fn keep(from: &File, to: &File, most: u64) -> io::Result<u64> {
    to.set_len(from.metadata()?.len())?;
    let mut chunk = vec![0; CHUNK];
    let mut kept = 0;
    for extent in Extents::of(from)? {
        let Extent { mut start, end } = extent?;
        while start < end {
            let length = CHUNK.min((end - start) as usize);
            from.read_exact_at(&mut chunk[..length], start)?;
            for (at, piece) in chunk[..length].chunks(PIECE).enumerate() {
                if piece.iter().any(|byte| *byte != 0) {
                    to.write_all_at(piece, start + (at * PIECE) as u64)?;
                    kept += piece.len() as u64;
                }
            }
            start += length as u64;
        }
        if kept > most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
    }
    Ok(kept)
}

/// Copies the extents of `from` to the same places of `to`, inside the kernel, and
/// returns how many bytes they have.
///
/// # Errors
/// I/O errors, `QuotaExceeded` for more than `most` bytes.
pub(super) fn copy(mut from: &File, mut to: &File, most: u64) -> io::Result<u64> {
    let mut copied = 0;
    for extent in Extents::of(from)? {
        let Extent { start, end } = extent?;
        copied += end - start;
        if copied > most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        if io::copy(&mut from.take(end - start), &mut to)? < end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(copied)
}

/// A piece of a file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
}

/// The extents of a file in order.
struct Extents<'f> {
    file: &'f File,
    at: u64,
    length: u64,
}

impl<'f> Extents<'f> {
    fn of(file: &'f File) -> io::Result<Self> {
        Ok(Self { file, at: 0, length: file.metadata()?.len() })
    }

    fn seek(&self, at: u64, whence: Whence) -> Result<u64, Errno> {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        lseek(self.file.as_fd(), at, whence).map(|at| at as u64)
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.length {
            return None;
        }
        let found = self.seek(self.at, Whence::SeekData);
        let extent = found.and_then(|start| Ok(Extent { start, end: self.seek(start, Whence::SeekHole)? }));
        match extent {
            // No data from here on.
            Err(Errno::ENXIO) => None,
            Err(errno) => {
                self.at = self.length;
                Some(Err(errno.into()))
            }
            Ok(extent) => {
                self.at = extent.end;
                Some(Ok(extent))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_what_is_not_zero_is_kept_and_all_of_it_comes_back() {
        let [memory, kept, copied] = std::array::from_fn(|_| tempfile::tempfile().unwrap());
        memory.set_len(64 * MIB).unwrap();
        memory.write_all_at(b"start", 0).unwrap();
        memory.write_all_at(&vec![0; MIB as usize], 8 * MIB).unwrap();
        memory.write_all_at(&vec![7; 3 * MIB as usize], 16 * MIB + 4096).unwrap();
        memory.write_all_at(b"end", 64 * MIB - 3).unwrap();

        let bytes = keep(&memory, &kept, u64::MAX).unwrap();
        assert!((3 * MIB..4 * MIB).contains(&bytes), "{bytes}");
        copied.set_len(64 * MIB).unwrap();
        assert_eq!(copy(&kept, &copied, u64::MAX).unwrap(), bytes);
        let content = |file: &File| {
            let mut bytes = vec![1; 64 * MIB as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(content(&memory) == content(&copied));

        assert_eq!(
            keep(&memory, &tempfile::tempfile().unwrap(), MIB).unwrap_err().kind(),
            io::ErrorKind::QuotaExceeded
        );
        assert_eq!(copy(&kept, &copied, MIB).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn a_file_without_data_has_no_extents() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Extents::of(&file).unwrap().count(), 0);
        file.set_len(MIB).unwrap();
        assert_eq!(Extents::of(&file).unwrap().count(), 0);
    }
}
