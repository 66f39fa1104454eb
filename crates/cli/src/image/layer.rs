//! Writes a folder as the layer of an image: a gzip-compressed tar stream
//! whose bytes depend on names, modes and contents alone.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::ImageError;

/// What a written layer is known by.
#[derive(Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the compressed bytes, in hex.
    pub digest: String,
    /// Digest of the tar stream inside, in hex.
    pub diff_id: String,
    /// Compressed size.
    pub bytes: u64,
}

/// Counts and digests what passes through.
struct Tally<W> {
    to: W,
    digest: Sha256,
    bytes: u64,
}

impl<W: Write> Tally<W> {
    fn new(to: W) -> Self {
        Self { to, digest: Sha256::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.to.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes the content of `dir` to `out`; `name` is what `out` is called in
/// errors.
pub fn write(dir: &Path, out: impl Write, name: &Path) -> Result<Layer, ImageError> {
    if !dir.is_dir() {
        return Err(ImageError::NotAFolder { path: dir.to_owned() });
    }
    let failed = |source| ImageError::Write { path: name.to_owned(), source };
    // No name and no time in the gzip header: nothing that differs by build.
    let gzip: GzEncoder<_> = GzBuilder::new().write(Tally::new(out), Compression::default());
    let mut tar = Tar { builder: tar::Builder::new(Tally::new(gzip)), links: HashMap::new(), out: name };
    tar.add_children(dir, Path::new(""))?;
    let plain = tar.builder.into_inner().map_err(failed)?;
    let diff_id = hex::encode(plain.digest.finalize());
    let mut packed = plain.to.finish().map_err(failed)?;
    packed.flush().map_err(failed)?;
    Ok(Layer { digest: hex::encode(packed.digest.finalize()), diff_id, bytes: packed.bytes })
}

struct Tar<'a, W: Write> {
    builder: tar::Builder<W>,
    /// First path of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
    out: &'a Path,
}

impl<W: Write> Tar<'_, W> {
    /// Adds what is in `dir`, in the order of names, at `inside` of the image.
    fn add_children(&mut self, dir: &Path, inside: &Path) -> Result<(), ImageError> {
        let failed = |source| ImageError::Read { path: dir.to_owned(), source };
        let mut names = fs::read_dir(dir)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(failed)?;
        names.sort();
        for name in names {
            self.add(&dir.join(&name), &inside.join(&name))?;
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, inside: &Path) -> Result<(), ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let metadata = fs::symlink_metadata(path).map_err(read)?;
        let kind = metadata.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(metadata.permissions().mode() & 0o7777);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.append(&mut header, inside, io::empty())?;
            return self.add_children(path, inside);
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            let target = fs::read_link(path).map_err(read)?;
            return self.append_link(&mut header, inside, &target);
        }
        if !kind.is_file() {
            return Err(ImageError::SpecialFile { path: path.to_owned() });
        }
        if metadata.nlink() > 1 {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&identity).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.append_link(&mut header, inside, &first);
            }
            self.links.insert(identity, inside.to_owned());
        }
        let file = fs::File::open(path).map_err(read)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.len());
        // A file that shrinks or grows meanwhile must not shift what follows.
        let content = file.chain(io::repeat(0)).take(metadata.len());
        self.append(&mut header, inside, content)
    }

    fn append(&mut self, header: &mut Header, inside: &Path, content: impl Read) -> Result<(), ImageError> {
        let out = self.out;
        self.builder
            .append_data(header, inside, content)
            .map_err(|source| ImageError::Write { path: out.to_owned(), source })
    }

    fn append_link(&mut self, header: &mut Header, inside: &Path, target: &Path) -> Result<(), ImageError> {
        let out = self.out;
        self.builder
            .append_link(header, inside, target)
            .map_err(|source| ImageError::Write { path: out.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::write(dir.join("bin/tool"), "content").unwrap();
        fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(dir.join("bin/tool"), dir.join("bin/zlink")).unwrap();
        symlink("tool", dir.join("bin/sym")).unwrap();
        let long = "d".repeat(120);
        fs::create_dir(dir.join(&long)).unwrap();
        fs::write(dir.join(&long).join("f".repeat(120)), "").unwrap();
    }

    #[test]
    fn a_layer_has_all_kinds_of_files_and_is_reproducible() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut layers = Vec::new();
        let mut bytes = Vec::new();
        for dir in [&one, &two] {
            tree(dir.path());
            bytes.clear();
            layers.push(write(dir.path(), &mut bytes, Path::new("out")).unwrap());
        }
        assert_eq!(layers[0], layers[1]);
        assert_eq!(layers[1].digest, hex::encode(Sha256::digest(&bytes)));

        let unpacked = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        archive.set_preserve_permissions(true);
        archive.unpack(unpacked.path()).unwrap();
        let tool = fs::metadata(unpacked.path().join("bin/tool")).unwrap();
        assert_eq!((tool.nlink(), tool.mode() & 0o7777), (2, 0o4755));
        assert_eq!(fs::read_link(unpacked.path().join("bin/sym")).unwrap(), Path::new("tool"));
        assert!(unpacked.path().join("d".repeat(120)).join("f".repeat(120)).exists());
    }

    #[test]
    fn what_cannot_be_in_an_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(matches!(write(dir.path(), io::sink(), Path::new("o")), Err(ImageError::SpecialFile { .. })));
        let none = dir.path().join("none");
        assert!(matches!(write(&none, io::sink(), Path::new("o")), Err(ImageError::NotAFolder { .. })));
    }
}
