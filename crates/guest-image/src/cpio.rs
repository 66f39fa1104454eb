//! Writes initramfs archives in the `newc` format of cpio
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).
//!
//! The bytes depend on the entries alone: sorted by path, no times, owned by
//! root, inode numbers counted from one.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";

#[derive(Debug)]
enum Node<'a> {
    Directory,
    File(&'a [u8]),
    Symlink,
    Device { major: u32, minor: u32 },
}

#[derive(Debug)]
struct Entry<'a> {
    permissions: u32,
    node: Node<'a>,
    /// Content made here: symlink targets and generated files.
    owned: Vec<u8>,
}

/// An archive in the making. Paths have no leading slash; parents that are not
/// added are made with mode 0755. A path added twice keeps its last entry.
#[derive(Debug, Default)]
pub struct Archive<'a> {
    entries: BTreeMap<String, Entry<'a>>,
}

impl<'a> Archive<'a> {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.add(path, permissions, Node::Directory, Vec::new());
    }

    /// Adds a regular file with content that outlives the archive.
    pub fn file(&mut self, path: &str, permissions: u32, content: &'a [u8]) {
        self.add(path, permissions, Node::File(content), Vec::new());
    }

    /// Adds a regular file with content of its own.
    pub fn text(&mut self, path: &str, permissions: u32, content: impl Into<Vec<u8>>) {
        self.add(path, permissions, Node::File(&[]), content.into());
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, 0o777, Node::Symlink, target.into());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        self.add(path, permissions, Node::Device { major, minor }, Vec::new());
    }

    fn add(&mut self, path: &str, permissions: u32, node: Node<'a>, owned: Vec<u8>) {
        for (slash, _) in path.match_indices('/') {
            let parent = || Entry { permissions: 0o755, node: Node::Directory, owned: Vec::new() };
            self.entries.entry(path[..slash].to_owned()).or_insert_with(parent);
        }
        self.entries.insert(path.to_owned(), Entry { permissions, node, owned });
    }

    /// The archive, ready to be a kernel's initramfs.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let (kind, links, major, minor, content) = match &entry.node {
                Node::Directory => (DIRECTORY, 2, 0, 0, &[][..]),
                Node::File(content) if entry.owned.is_empty() => (REGULAR, 1, 0, 0, *content),
                Node::File(_) => (REGULAR, 1, 0, 0, entry.owned.as_slice()),
                Node::Symlink => (SYMLINK, 1, 0, 0, entry.owned.as_slice()),
                Node::Device { major, minor } => (CHARACTER, 1, *major, *minor, &[][..]),
            };
            let header = Header { inode, mode: kind | entry.permissions, links, major, minor };
            header.write(&mut out, path, content);
        }
        Header { inode: 0, mode: 0, links: 1, major: 0, minor: 0 }.write(&mut out, TRAILER, &[]);
        out
    }
}

struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    major: u32,
    minor: u32,
}

impl Header {
    /// Magic, thirteen fields of eight hex digits, name, content; name and
    /// content are padded to four bytes.
    fn write(&self, out: &mut Vec<u8>, name: &str, content: &[u8]) {
        let size = u32::try_from(content.len()).expect("a guest file is far below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        let (uid, gid, mtime, on_major, on_minor, checksum) = (0, 0, 0, 0, 0, 0);
        let fields = [
            self.inode, self.mode, uid, gid, self.links, mtime, size, on_major, on_minor, self.major, self.minor,
            name_size, checksum,
        ];
        out.extend_from_slice(b"070701");
        for field in fields {
            out.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        pad(out);
        out.extend_from_slice(content);
        pad(out);
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_entry_are_those_of_the_format() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        let want = "070701\
            00000001000081a400000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000200000000a\0\0\0hello\0\0\0";
        // 110 header bytes and "a\0" end on a multiple of four already.
        let want = want.replacen("a\0\0\0hello", "a\0hello", 1);
        assert_eq!(String::from_utf8_lossy(&bytes[..want.len()]), want);
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn order_of_adding_does_not_show_and_parents_are_made() {
        let mut one = Archive::new();
        one.file("x/y/z", 0o755, b"1");
        one.symlink("a", "x");
        let mut two = Archive::new();
        two.symlink("a", "x");
        two.file("x/y/z", 0o755, b"1");
        assert_eq!(one.finish(), two.finish());
        assert_eq!(one.entries.keys().collect::<Vec<_>>(), ["a", "x", "x/y", "x/y/z"]);
    }
}
