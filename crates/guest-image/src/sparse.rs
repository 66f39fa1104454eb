//! Leaves the empty pages of a kernel out of its file.
//!
//! A third of a distribution kernel is zeros: room for its unset variables and
//! padding between its sections. The memory of a new machine is zeros as well,
//! so QEMU needs neither read nor write nor keep them. The file that remains is
//! an ELF kernel like the one before, with more and smaller loadable segments
//! and without section headers (System V ABI, ELF-64, edition 1.5).

use object::{
    LittleEndian,
    elf::{FileHeader64, PT_LOAD, PT_NOTE, ProgramHeader64},
    read::elf::{FileHeader, ProgramHeader},
};

const PAGE: usize = 4096;
/// Shorter gaps are kept: every segment costs QEMU a mapping of its own.
const LEAST_GAP: usize = 16 * PAGE;
const HEADER: usize = size_of::<FileHeader64<LittleEndian>>();
const ENTRY: usize = size_of::<ProgramHeader64<LittleEndian>>();
const READ_WRITE_EXECUTE: u32 = 7;

/// One program header and what it describes.
struct Segment<'a> {
    kind: u32,
    virtual_address: u64,
    physical_address: u64,
    content: &'a [u8],
}

/// `kernel` without its empty pages; `None` when it is not a 64-bit ELF file
/// whose headers stay within it.
pub fn without_empty_pages(kernel: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<LittleEndian>::parse(kernel).ok()?;
    let order = header.endian().ok()?;
    let mut segments = Vec::new();
    for program in header.program_headers(order, kernel).ok()? {
        let content = program.data(order, kernel).ok()?;
        let whole = Segment {
            kind: program.p_type(order).0,
            virtual_address: program.p_vaddr(order),
            physical_address: program.p_paddr(order),
            content,
        };
        match program.p_type(order) {
            PT_LOAD => split(whole, &mut segments)?,
            PT_NOTE => segments.push(whole),
            _ => {}
        }
    }
    write(kernel.get(..HEADER)?, &segments)
}

/// Adds the parts of `whole` that have something in them.
fn split<'a>(whole: Segment<'a>, parts: &mut Vec<Segment<'a>>) -> Option<()> {
    let mut at = 0;
    while at < whole.content.len() {
        let length = filled(&whole.content[at..]);
        if length > 0 {
            parts.push(Segment {
                kind: whole.kind,
                virtual_address: whole.virtual_address.checked_add(at as u64)?,
                physical_address: whole.physical_address.checked_add(at as u64)?,
                content: &whole.content[at..at + length],
            });
        }
        at += length;
        at += empty(&whole.content[at..]);
    }
    Some(())
}

/// Bytes until the first gap.
fn filled(content: &[u8]) -> usize {
    let mut at = 0;
    while at < content.len() {
        let gap = empty(&content[at..]);
        if gap >= LEAST_GAP || gap == content.len() - at {
            return at;
        }
        at += gap.max(PAGE);
    }
    content.len()
}

/// Bytes of whole pages of zeros at the start.
fn empty(content: &[u8]) -> usize {
    let full = content.chunks(PAGE).take_while(|page| page.iter().all(|byte| *byte == 0));
    full.map(<[u8]>::len).sum()
}

/// Header, program headers, then each segment at an offset that fits its address.
fn write(header: &[u8], segments: &[Segment]) -> Option<Vec<u8>> {
    let mut file = header.to_vec();
    let count = u16::try_from(segments.len()).ok()?;
    file[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
    // No section headers: where they are, their number, and the index of their names.
    file[40..48].fill(0);
    file[56..58].copy_from_slice(&count.to_le_bytes());
    file[60..64].fill(0);
    let mut offset = HEADER + segments.len() * ENTRY;
    let mut offsets = Vec::with_capacity(segments.len());
    for segment in segments {
        offset = offset.next_multiple_of(PAGE) + segment.physical_address as usize % PAGE;
        offsets.push(offset);
        file.extend(program_header(segment, offset as u64));
        offset += segment.content.len();
    }
    for (segment, offset) in segments.iter().zip(offsets) {
        file.resize(offset, 0);
        file.extend_from_slice(segment.content);
    }
    Some(file)
}

fn program_header(segment: &Segment, offset: u64) -> Vec<u8> {
    let length = segment.content.len() as u64;
    let mut entry = Vec::with_capacity(ENTRY);
    entry.extend(segment.kind.to_le_bytes());
    entry.extend(READ_WRITE_EXECUTE.to_le_bytes());
    let align = if segment.kind == PT_NOTE.0 { 4 } else { PAGE as u64 };
    for word in [offset, segment.virtual_address, segment.physical_address, length, length, align] {
        entry.extend(word.to_le_bytes());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine's memory holds after `kernel` has been loaded.
    fn memory(kernel: &[u8]) -> Vec<u8> {
        let header = FileHeader64::<LittleEndian>::parse(kernel).unwrap();
        let order = header.endian().unwrap();
        let mut memory = vec![0; 1 << 21];
        for program in header.program_headers(order, kernel).unwrap() {
            if program.p_type(order) == PT_LOAD {
                let (at, content) = (program.p_paddr(order) as usize, program.data(order, kernel).unwrap());
                memory[at..at + content.len()].copy_from_slice(content);
            }
        }
        memory
    }

    fn kernel(segments: &[Segment]) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[52..56].copy_from_slice(&[HEADER as u8, 0, ENTRY as u8, 0]);
        write(&header, segments).unwrap()
    }

    #[test]
    fn memory_is_the_same_and_the_file_smaller() {
        let mut content = vec![0; 100 * PAGE + 77];
        for at in [0, 5 * PAGE, 30 * PAGE + 9, 99 * PAGE] {
            content[at] = 1;
        }
        let load = Segment { kind: PT_LOAD.0, virtual_address: 7 << 20, physical_address: 1 << 20, content: &content };
        let note = Segment { kind: PT_NOTE.0, virtual_address: 0, physical_address: 12, content: b"note" };
        let before = kernel(&[load, note]);
        let after = without_empty_pages(&before).unwrap();
        assert!(memory(&before) == memory(&after));
        assert!(after.len() < 12 * PAGE, "{}", after.len());
        assert_eq!(without_empty_pages(&after).unwrap(), after, "nothing is left to take out");
        assert!(after.windows(4).any(|bytes| bytes == b"note"));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let whole = kernel(&[Segment { kind: PT_LOAD.0, virtual_address: 0, physical_address: 0, content: &[1; 9] }]);
        for (name, bytes) in [("text", b"text".to_vec()), ("cut", whole[..whole.len() - 1].to_vec())] {
            assert!(without_empty_pages(&bytes).is_none(), "{name}");
        }
    }
}
