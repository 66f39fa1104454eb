//! The image of the sandbox container, made here so that no registry is needed.
//!
//! Its only file is a static program of a few dozen bytes that ignores
//! `SIGCHLD`, by which the kernel reaps orphans of a shared process namespace,
//! and sleeps until it is killed.

use oci_spec::image::{
    ConfigBuilder, Descriptor, Digest, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType,
    RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::Digest as _;

use super::config::PAUSE_IMAGE;

/// Where the program is loaded; any page above the lowest ones does.
const BASE: u64 = 0x0040_0000;
/// ELF header and one program header.
const HEADERS: usize = 64 + 56;

/// Machine code for x86-64, the one architecture this project supports.
#[rustfmt::skip]
const CODE: &[u8] = &[
    // rt_sigaction(SIGCHLD, &{SIG_IGN}, NULL, 8)
    0xb8, 13, 0, 0, 0,              // mov  eax, 13
    0xbf, 17, 0, 0, 0,              // mov  edi, 17
    0x48, 0x8d, 0x35, 19, 0, 0, 0,  // lea  rsi, [rip + 19]
    0x31, 0xd2,                     // xor  edx, edx
    0x41, 0xba, 8, 0, 0, 0,         // mov  r10d, 8
    0x0f, 0x05,                     // syscall
    // for (;;) pause()
    0xb8, 34, 0, 0, 0,              // mov  eax, 34
    0x0f, 0x05,                     // syscall
    0xeb, 0xf7,                     // jmp  -9
    // struct kernel_sigaction { SIG_IGN, flags, restorer, mask }
    1, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
];

/// The program as an ELF64 executable (System V ABI, "ELF Header").
fn program() -> Vec<u8> {
    let size = (HEADERS + CODE.len()) as u64;
    let mut elf = Vec::with_capacity(HEADERS + CODE.len());
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2_u16, 62] {
        elf.extend(half.to_le_bytes()); // ET_EXEC, EM_X86_64
    }
    elf.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS as u64, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes()); // header sizes and counts
    }
    elf.extend(1_u32.to_le_bytes()); // PT_LOAD
    elf.extend(5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes()); // whole file at BASE
    }
    elf.extend(CODE);
    elf
}

/// An OCI image layout (image-spec 1.0) in a tar archive, as `ctr images import`
/// takes it.
///
/// # Errors
/// Never in practice: everything is built in memory.
pub fn archive() -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let layer = tar(&[("pause", &program(), 0o755)])?;
    let layer_digest = digest(&layer)?;
    let config = ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .config(ConfigBuilder::default().entrypoint(["/pause".to_owned()]).build()?)
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{}", layer_digest.digest())]).build()?)
        .build()?;
    let mut blobs = Vec::new();
    let layer = blob(&mut blobs, MediaType::ImageLayer, layer)?;
    let config = json_blob(&mut blobs, MediaType::ImageConfig, &config)?;
    let manifest = ImageManifestBuilder::default().schema_version(2_u32).config(config).layers([layer]).build()?;
    let mut manifest = json_blob(&mut blobs, MediaType::ImageManifest, &manifest)?;
    manifest.set_annotations(Some([("io.containerd.image.name".into(), PAUSE_IMAGE.into())].into()));
    let index = ImageIndexBuilder::default().schema_version(2_u32).manifests([manifest]).build()?;
    let index = serde_json::to_vec(&index)?;
    let mut files =
        vec![("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..], 0o644), ("index.json", &index, 0o644)];
    files.extend(blobs.iter().map(|(name, content)| (name.as_str(), content.as_slice(), 0o644)));
    Ok(tar(&files)?)
}

type Error = Box<dyn std::error::Error + Send + Sync>;
type Blobs = Vec<(String, Vec<u8>)>;

fn digest(content: &[u8]) -> Result<Sha256Digest, Error> {
    Ok(hex::encode(sha2::Sha256::digest(content)).parse()?)
}

fn blob(blobs: &mut Blobs, kind: MediaType, content: Vec<u8>) -> Result<Descriptor, Error> {
    let digest = digest(&content)?;
    let descriptor = Descriptor::new(kind, content.len() as u64, Digest::from(digest.clone()));
    blobs.push((format!("blobs/sha256/{}", digest.digest()), content));
    Ok(descriptor)
}

fn json_blob(blobs: &mut Blobs, kind: MediaType, content: &impl Serialize) -> Result<Descriptor, Error> {
    blob(blobs, kind, serde_json::to_vec(content)?)
}

/// A tar archive with fixed owners and times: the digest never changes.
fn tar(files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, *content)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn the_program_runs_until_it_is_killed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("pause");
        std::fs::write(&file, program()).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut child = Command::new(&file).spawn().expect("spawn");
        let status = format!("/proc/{}/status", child.id());
        // Signal 17, SIGCHLD, is bit 16.
        let ready = (0..1000).any(|_| {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5_u8));
            let ignored = text.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:\t")?, 16).ok());
            ignored.is_some_and(|mask| mask & 1 << 16 != 0)
        });
        let alive = child.try_wait().expect("wait").is_none();
        child.kill().expect("kill");
        child.wait().expect("reap");
        assert!(ready && alive);
    }

    #[test]
    fn the_archive_is_always_the_same() {
        assert_eq!(archive().expect("build"), archive().expect("build"));
    }
}
