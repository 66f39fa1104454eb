//! A file that seems to be written to: what is written stays in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

use redb::StorageBackend;

const PAGE: usize = 4096;

/// The file below and the pages written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: RwLock<Written>,
}

#[derive(Debug)]
struct Written {
    /// The length the file seems to have.
    len: u64,
    /// How much of the file below still shows; after it come zeros.
    below: u64,
    pages: HashMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, written: RwLock::new(Written { len, below: len, pages: HashMap::new() }) })
    }

    /// Fills `out` from the file below, with zeros after its end.
    fn read_below(&self, below: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(below.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, after) = out.split_at_mut(there);
        after.fill(0);
        self.file.read_exact_at(there, offset)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.read().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        check(offset, out.len(), written.len)?;
        for piece in pieces(offset, out.len()) {
            let out = &mut out[piece.from..piece.from + piece.len];
            match written.pages.get(&piece.page) {
                Some(page) => out.copy_from_slice(&page[piece.within..piece.within + piece.len]),
                None => self.read_below(written.below, offset + piece.from as u64, out)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        written.len = len;
        written.below = written.below.min(len);
        let (last, within) = (len / PAGE as u64, (len % PAGE as u64) as usize);
        written.pages.retain(|&page, bytes| {
            if page == last {
                bytes[within..].fill(0);
            }
            page <= last
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        check(offset, data.len(), written.len)?;
        for piece in pieces(offset, data.len()) {
            if !written.pages.contains_key(&piece.page) {
                let mut page = Box::new([0; PAGE]);
                self.read_below(written.below, piece.page * PAGE as u64, &mut page[..])?;
                written.pages.insert(piece.page, page);
            }
            if let Some(page) = written.pages.get_mut(&piece.page) {
                page[piece.within..piece.within + piece.len].copy_from_slice(&data[piece.from..piece.from + piece.len]);
            }
        }
        Ok(())
    }
}

/// A part of a read or write that is inside one page.
struct Piece {
    page: u64,
    within: usize,
    from: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == len {
            return None;
        }
        let at = offset + from as u64;
        let within = (at % PAGE as u64) as usize;
        let piece = Piece { page: at / PAGE as u64, within, from, len: (PAGE - within).min(len - from) };
        from += piece.len;
        Some(piece)
    })
}

fn check(offset: u64, len: usize, end: u64) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(last) if last <= end => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{len} bytes at {offset} of a file of {end}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Read(u64, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..20_000u64, proptest::collection::vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Op::Write(at, data)),
            (0..20_000u64).prop_map(Op::SetLen),
            (0..20_000u64, 0..9000usize).prop_map(|(at, len)| Op::Read(at, len)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn looks_like_a_file_and_leaves_the_file(
            below in proptest::collection::vec(any::<u8>(), 0..15_000),
            ops in proptest::collection::vec(op(), 1..20),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&below).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let mut model = below.clone();
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        let at_end = at as usize + data.len();
                        prop_assert_eq!(overlay.write(at, &data).is_ok(), at_end <= model.len());
                        if at_end <= model.len() {
                            model[at as usize..at_end].copy_from_slice(&data);
                        }
                    }
                    Op::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                    Op::Read(at, len) => {
                        let mut out = vec![1; len];
                        let want = model.get(at as usize..at as usize + len);
                        prop_assert_eq!(overlay.read(at, &mut out).is_ok(), want.is_some());
                        if let Some(want) = want {
                            prop_assert_eq!(&out[..], want);
                        }
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            }
            let mut left = vec![0; below.len()];
            file.read_exact_at(&mut left, 0).unwrap();
            prop_assert_eq!(left, below);
        }
    }
}
