//! Takes the uncompressed kernel out of a boot image.
//!
//! QEMU starts an ELF kernel at its PVH entry directly; decompressing in an
//! emulated guest would cost a third of the boot. The layout of the boot image
//! is `Documentation/arch/x86/boot.rst` of the kernel, protocol 2.08 or newer.

use std::{
    io::{self, Read},
    ops::Range,
    process::Command,
    time::Duration,
};

use object::{
    LittleEndian,
    elf::NoteType,
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};

use crate::{
    command::{self, Limits},
    error::BuildError,
    sparse,
};

/// No kernel is larger; a damaged header must not make us allocate.
const LARGEST: u32 = 512 << 20;
const LZ4_LEGACY_MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// Every block of a legacy LZ4 stream holds this much, the last may hold less.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;
/// Note that gives the PVH entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: NoteType = NoteType(18);

/// The ELF kernel inside boot image `image` of `package`.
pub fn vmlinux(image: &[u8], package: &str) -> Result<Vec<u8>, BuildError> {
    let problem = |problem| BuildError::KernelImage { package: package.to_owned(), problem };
    let (payload, size) = payload(image).map_err(problem)?;
    let kernel = decompress(&image[payload], size, package)?;
    if kernel.len() != size as usize {
        return Err(problem("its size is not the one its header gives"));
    }
    check(&kernel).map_err(problem)?;
    sparse::without_empty_pages(&kernel).ok_or_else(|| problem("its ELF headers point outside the file"))
}

/// Where the compressed kernel is, without its trailing size, and that size.
fn payload(image: &[u8]) -> Result<(Range<usize>, u32), &'static str> {
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const VERSION: usize = 0x206;
    const OFFSET: usize = 0x248;
    const LENGTH: usize = 0x24c;
    let word = |at: usize| image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);

    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err("it is not an x86 boot image");
    }
    if word(VERSION).is_none_or(|version| version & 0xffff < 0x0208) {
        return Err("its boot protocol is older than 2.08");
    }
    // Zero means four, says the protocol.
    let setup = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let truncated = "its header points outside the file";
    let start = (setup + 1) * 512 + word(OFFSET).ok_or(truncated)? as usize;
    let end = start.checked_add(word(LENGTH).ok_or(truncated)? as usize).ok_or(truncated)?;
    if end > image.len() || end < start + 8 {
        return Err(truncated);
    }
    let size = word(end - 4).ok_or(truncated)?;
    if size > LARGEST {
        return Err("it claims to be larger than any kernel");
    }
    Ok((start..end - 4, size))
}

fn decompress(payload: &[u8], size: u32, package: &str) -> Result<Vec<u8>, BuildError> {
    let corrupt = |source| BuildError::KernelCorrupt { package: package.to_owned(), source };
    let limits = Limits { time: Duration::from_secs(120), output: size.into() };
    match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(payload, size as usize).map_err(corrupt),
        [0x1f, 0x8b, ..] => {
            let mut kernel = Vec::new();
            // The size at the end of the payload is gzip's own trailer here.
            let trailer = size.to_le_bytes();
            let whole = payload.chain(&trailer[..]);
            flate2::read::GzDecoder::new(whole).take(limits.output + 1).read_to_end(&mut kernel).map_err(corrupt)?;
            Ok(kernel)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            command::output(Command::new("xz").args(["-d", "-c"]), payload, &limits)
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => command::output(Command::new("zstd").args(["-d", "-c"]), payload, &limits),
        _ => Err(BuildError::KernelImage {
            package: package.to_owned(),
            problem: "its compression is none of gzip, xz, LZ4 and Zstandard",
        }),
    }
}

/// The legacy LZ4 frame: magic, then blocks, each behind its length.
fn lz4_legacy(stream: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut rest = stream.strip_prefix(LZ4_LEGACY_MAGIC).ok_or_else(|| invalid("no LZ4 magic"))?;
    let mut kernel = vec![0; size];
    let mut filled = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > tail.len() {
            return Err(invalid("LZ4 block is cut short"));
        }
        let (block, tail) = tail.split_at(length);
        let room = &mut kernel[filled..];
        let room_length = room.len().min(LZ4_LEGACY_BLOCK);
        filled += lz4_flex::block::decompress_into(block, &mut room[..room_length])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        rest = tail;
    }
    kernel.truncate(filled);
    Ok(kernel)
}

/// Checks that QEMU can start `kernel`.
fn check(kernel: &[u8]) -> Result<(), &'static str> {
    const NOT_ELF: &str = "its content is not a 64-bit ELF kernel";
    let elf = ElfFile64::<LittleEndian>::parse(kernel).map_err(|_| NOT_ELF)?;
    let (header, order) = (elf.elf_header(), elf.endian());
    let programs = header.program_headers(order, kernel).map_err(|_| NOT_ELF)?;
    let pvh = programs.iter().any(|program| has_pvh_note(program, order, kernel));
    if pvh { Ok(()) } else { Err("it has no PVH entry point") }
}

fn has_pvh_note(program: &impl ProgramHeader<Endian = LittleEndian>, order: LittleEndian, kernel: &[u8]) -> bool {
    let Ok(Some(mut notes)) = program.notes(order, kernel) else { return false };
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(order) == PVH_NOTE {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Stdio};

    use super::*;

    /// A boot image whose payload is `payload`, said to unpack to `size`.
    fn image(payload: &[u8], size: u32, in_payload: bool) -> Vec<u8> {
        let mut image = vec![0; 5 * 512];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + if in_payload { 0 } else { 4 }).to_le_bytes());
        image.extend_from_slice(payload);
        if !in_payload {
            image.extend_from_slice(&size.to_le_bytes());
        }
        image
    }

    fn tool(program: &str, input: &[u8]) -> Vec<u8> {
        let mut child =
            Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(program);
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn every_compression_of_the_kernel_unpacks() {
        let content: Vec<u8> = (0..LZ4_LEGACY_BLOCK + 1000).map(|i| (i / 7) as u8).collect();
        let size = content.len() as u32;
        let mut lz4 = LZ4_LEGACY_MAGIC.to_vec();
        for block in content.chunks(LZ4_LEGACY_BLOCK) {
            let packed = lz4_flex::block::compress(block);
            lz4.extend((packed.len() as u32).to_le_bytes());
            lz4.extend(packed);
        }
        for (name, payload, in_payload) in [
            ("lz4", lz4, false),
            ("gzip", tool("gzip", &content), true),
            ("xz", tool("xz", &content), false),
            ("zstd", tool("zstd", &content), false),
        ] {
            let image = image(&payload, size, in_payload);
            let (range, found) = payload_of(&image);
            assert_eq!(found, size, "{name}");
            assert!(decompress(&image[range], size, "p").unwrap() == content, "{name}");
        }
    }

    fn payload_of(image: &[u8]) -> (Range<usize>, u32) {
        payload(image).unwrap()
    }

    #[test]
    fn damaged_images_are_refused() {
        let good = image(b"\x02\x21\x4c\x18\x04\0\0\0abcd", 1000, false);
        assert!(matches!(vmlinux(&good, "p"), Err(BuildError::KernelCorrupt { .. })));
        let unknown = image(b"unknown!", 8, false);
        let cases: [(&str, Vec<u8>); 5] = [
            ("empty", vec![]),
            ("no magic", vec![0; 4096]),
            ("cut", good[..good.len() - 1].to_vec()),
            ("unknown compression", unknown),
            ("huge", image(b"\x02\x21\x4c\x18\x04\0\0\0abcd", u32::MAX, false)),
        ];
        for (name, image) in cases {
            assert!(matches!(vmlinux(&image, "p"), Err(BuildError::KernelImage { .. })), "{name}");
        }
    }

    #[test]
    fn a_program_that_is_not_a_kernel_has_no_entry_for_qemu() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check(&program), Err("it has no PVH entry point"));
        assert_eq!(check(b"text"), Err("its content is not a 64-bit ELF kernel"));
    }
}
