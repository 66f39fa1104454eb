//! Puts the kernel into guest memory before QEMU starts.
//!
//! ```text
//!  vmlinux ──copied──► memfd ═ guest memory ─► -object memory-backend-file
//!     └── ELF header, first page, notes ─► stub ─► -kernel
//! ```
//!
//! QEMU keeps the kernel file mapped for as long as the machine exists, for a
//! reset our machines never do: 29 MiB in every sandbox. Given a kernel that
//! consists of one page and the note with the entry point, it maps no more than
//! that, and finds the rest where it would have put it. Memory of a new memfd is
//! zero, so that segments need not be filled up, and below the hole for devices
//! an offset in it is a physical address.
//!
//! ELF-64 is described in the System V ABI, the note in the Xen PVH boot ABI.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::config::Mib;

/// Room for the ELF header and more program headers than any kernel has.
const HEAD: usize = 16 << 10;
const HEADER: usize = 64;
const ENTRY: usize = 56;
const PAGE: u64 = 4096;
/// The q35 board has memory without a hole below this address in any case.
const HOLE: u64 = 2 << 30;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Kernels have some hundred bytes of notes.
const LARGEST_NOTE: u64 = 64 << 10;

/// Guest memory with a kernel in it.
#[derive(Debug)]
pub(super) struct Preloaded {
    /// All of the memory the machine boots with.
    pub memory: File,
    /// What QEMU is told to start.
    pub stub: File,
}

/// A program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// Loads `kernel` into new memory of `size`. `None` when it is not an ELF kernel
/// that fits: QEMU knows more formats, and says better what is wrong.
///
/// Blocks for as long as it takes to read the kernel.
pub(super) fn preload(kernel: &Path, size: Mib) -> io::Result<Option<Preloaded>> {
    let Some(kernel) = Kernel::open(kernel, size)? else { return Ok(None) };
    let memory = guest_memory(size)?;
    for segment in kernel.segments.iter().filter(|segment| segment.kind == PT_LOAD) {
        load(&kernel.file, &memory, *segment)?;
    }
    Ok(Some(Preloaded { memory, stub: kernel.stub()? }))
}

/// The same with `memory` that has a running kernel in it.
///
/// # Errors
/// `InvalidData` for a kernel [`preload`] leaves to QEMU.
pub(super) fn preload_running(kernel: &Path, size: Mib, memory: File) -> io::Result<Preloaded> {
    let kernel = Kernel::open(kernel, size)?.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Preloaded { memory, stub: kernel.stub()? })
}

/// A kernel file that was understood.
struct Kernel {
    file: File,
    head: Vec<u8>,
    segments: Vec<Segment>,
}

impl Kernel {
    /// `None` for one that is no ELF kernel that fits into memory of `size`.
    fn open(path: &Path, size: Mib) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut head = Vec::with_capacity(HEAD);
        (&file).take(HEAD as u64).read_to_end(&mut head)?;
        let segments = segments(&head, HOLE.min(size.bytes()));
        Ok(segments.map(|segments| Self { file, head, segments }))
    }

    fn stub(&self) -> io::Result<File> {
        stub(&self.file, &self.head, &self.segments)
    }
}

/// New memory of `size`, all of it zero.
///
/// # Errors
/// What the kernel says.
pub(crate) fn guest_memory(size: Mib) -> io::Result<File> {
    let memory = anonymous(c"guest-memory")?;
    memory.set_len(size.bytes())?;
    Ok(memory)
}

fn anonymous(name: &std::ffi::CStr) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// The segments of an ELF-64 kernel that ends below `limit`.
fn segments(head: &[u8], limit: u64) -> Option<Vec<Segment>> {
    const START: &[u8] = b"\x7fELF\x02\x01\x01";
    if !head.starts_with(START) {
        return None;
    }
    let table = usize::try_from(word(head, 32)?).ok()?;
    let count = usize::from(u16::from_le_bytes(head.get(56..58)?.try_into().ok()?));
    let table = head.get(table..table.checked_add(count * ENTRY)?)?;
    let segments: Vec<Segment> = table.chunks_exact(ENTRY).filter_map(segment).collect();
    let fits = |segment: &Segment| {
        let end = segment.address.checked_add(segment.length);
        let note = segment.kind == PT_NOTE && segment.length <= LARGEST_NOTE;
        note || segment.kind == PT_LOAD && end.is_some_and(|end| end <= limit)
    };
    let has = |kind| segments.iter().any(|segment| segment.kind == kind);
    (has(PT_LOAD) && has(PT_NOTE) && segments.iter().all(fits)).then_some(segments)
}

fn segment(entry: &[u8]) -> Option<Segment> {
    let kind = u32::from_le_bytes(entry.get(..4)?.try_into().ok()?);
    let segment = Segment { kind, offset: word(entry, 8)?, address: word(entry, 24)?, length: word(entry, 32)? };
    (matches!(kind, PT_LOAD | PT_NOTE) && segment.length > 0).then_some(segment)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn load(mut kernel: &File, mut memory: &File, segment: Segment) -> io::Result<()> {
    kernel.seek(SeekFrom::Start(segment.offset))?;
    memory.seek(SeekFrom::Start(segment.address))?;
    // Between files the kernel does the copying.
    let copied = io::copy(&mut kernel.take(segment.length), &mut memory)?;
    if copied < segment.length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// A kernel file of one page and the notes, with the entry points of the whole.
fn stub(kernel: &File, head: &[u8], segments: &[Segment]) -> io::Result<File> {
    let notes = segments.iter().filter(|segment| segment.kind == PT_NOTE);
    let first = segments.iter().find(|segment| segment.kind == PT_LOAD).copied();
    let first = first.map(|segment| Segment { length: segment.length.min(PAGE), ..segment });
    let parts: Vec<Segment> = first.into_iter().chain(notes.copied()).collect();

    let mut bytes = head[..HEADER].to_vec();
    bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
    // No section headers: where they are, how many, and which has their names.
    bytes[40..48].fill(0);
    bytes[56..58].copy_from_slice(&(parts.len() as u16).to_le_bytes());
    bytes[60..64].fill(0);
    let mut offset = PAGE;
    for part in &parts {
        let align = if part.kind == PT_NOTE { 4 } else { PAGE };
        bytes.extend(part.kind.to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        for word in [offset, part.address, part.address, part.length, part.length, align] {
            bytes.extend(word.to_le_bytes());
        }
        offset += part.length.next_multiple_of(PAGE);
    }
    for part in &parts {
        bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
        let at = bytes.len();
        bytes.resize(at + part.length as usize, 0);
        kernel.read_exact_at(&mut bytes[at..], part.offset)?;
    }
    let mut file = anonymous(c"guest-kernel")?;
    file.write_all(&bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file whose parts are (kind, address, content).
    fn kernel(parts: &[(u32, u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; HEADER];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[32] = HEADER as u8;
        file[56] = parts.len() as u8;
        let mut offset = (HEADER + parts.len() * ENTRY) as u64;
        for (kind, address, content) in parts {
            file.extend(kind.to_le_bytes());
            file.extend([0; 4]);
            for word in [offset, *address, *address, content.len() as u64, content.len() as u64, 1] {
                file.extend(word.to_le_bytes());
            }
            offset += content.len() as u64;
        }
        parts.iter().for_each(|(_, _, content)| file.extend_from_slice(content));
        file
    }

    fn run(file: &[u8]) -> io::Result<Option<Preloaded>> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        preload(path.path(), Mib(4))
    }

    #[test]
    fn segments_are_at_their_addresses_and_the_stub_is_small() {
        let long = vec![7; 3 * PAGE as usize];
        let file = kernel(&[(PT_LOAD, 1 << 20, &long), (6, 0, b"x"), (PT_NOTE, 4, b"note"), (PT_LOAD, 5, b"low")]);
        let Preloaded { memory, stub } = run(&file).unwrap().unwrap();
        assert_eq!(memory.metadata().unwrap().len(), 4 << 20);
        let mut found = vec![0; 3 * PAGE as usize + 1];
        memory.read_exact_at(&mut found, 1 << 20).unwrap();
        assert!(found[..long.len()] == long && found[long.len()] == 0);
        memory.read_exact_at(&mut found[..3], 5).unwrap();
        assert_eq!(&found[..3], b"low");

        let mut head = vec![0; stub.metadata().unwrap().len() as usize];
        stub.read_exact_at(&mut head, 0).unwrap();
        let parts = segments(&head, HOLE).unwrap();
        let page = Segment { kind: PT_LOAD, offset: PAGE, address: 1 << 20, length: PAGE };
        assert_eq!(parts, [page, Segment { kind: PT_NOTE, offset: 2 * PAGE, address: 4, length: 4 }]);
        assert_eq!(&head[2 * PAGE as usize..], b"note");
    }

    #[test]
    fn what_is_no_elf_kernel_or_does_not_fit_is_left_to_qemu() {
        let note = (PT_NOTE, 0, &b"note"[..]);
        for (name, file) in [
            ("boot image", b"HdrS".to_vec()),
            ("empty", vec![]),
            ("no note", kernel(&[(PT_LOAD, 0, b"x")])),
            ("nothing to load", kernel(&[note])),
            ("too high", kernel(&[note, (PT_LOAD, 4 << 20, b"x")])),
            ("beyond all addresses", kernel(&[note, (PT_LOAD, u64::MAX, b"x")])),
        ] {
            assert!(run(&file).unwrap().is_none(), "{name}");
        }
        let mut cut = kernel(&[note, (PT_LOAD, 0, &[1; 9000])]);
        cut.truncate(5000);
        assert_eq!(run(&cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
