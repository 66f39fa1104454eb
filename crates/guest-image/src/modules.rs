//! Which kernel modules a guest carries, and which of them it loads at boot.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object, ObjectSection};

use crate::error::BuildError;

/// Loaded by the agent before it serves, with what they depend on: the devices
/// every sandbox has.
pub const BOOT: &[&str] = &["virtio_pci", "vmw_vsock_virtio_transport", "virtiofs", "virtio_net"];

/// Carried for `modprobe` and for the kernel's own requests. Every name is
/// there for a reason:
/// - storage that a pod may be given: overlay, block and SCSI disks, EROFS, loop
/// - what a container with network rights may set up: virtual links, tunnels,
///   and packet filters both old and new, as service meshes do
/// - socket diagnostics, which `ss` asks for
pub const ON_DEMAND: &[&str] = &[
    "overlay",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "erofs",
    "loop",
    "virtio_rng",
    "virtio_balloon",
    "dummy",
    "veth",
    "bridge",
    "tun",
    "tcp_diag",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "ip6table_mangle",
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_reject_inet",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_REDIRECT",
    "xt_nat",
    "xt_tcpudp",
    "xt_multiport",
    "xt_comment",
    "xt_mark",
    "xt_owner",
    "xt_addrtype",
];

/// One module of the image.
#[derive(Debug)]
pub struct Module<'a> {
    /// Name as `lsmod` prints it.
    pub name: String,
    /// Path below `lib/modules/<release>`.
    pub path: &'a str,
    /// The module file, without its signature.
    pub content: &'a [u8],
    /// Names of the modules it needs.
    pub depends: Vec<String>,
    /// Names the kernel may ask for it by.
    pub aliases: Vec<String>,
}

/// The modules of an image.
#[derive(Debug)]
pub struct Selection<'a> {
    /// Loaded at boot, in this order.
    pub boot: Vec<Module<'a>>,
    /// Loaded when asked for; none of `boot` is among them.
    pub on_demand: Vec<Module<'a>>,
}

impl Selection<'_> {
    /// Names of the boot modules in load order.
    pub fn boot_names(&self) -> Vec<String> {
        self.boot.iter().map(|module| module.name.clone()).collect()
    }

    /// Names of the other modules.
    pub fn on_demand_names(&self) -> Vec<String> {
        self.on_demand.iter().map(|module| module.name.clone()).collect()
    }
}

/// Closes `boot`, `on_demand` and `extra` over their dependencies. `files` are
/// a kernel's modules by path.
pub fn select<'a>(
    files: &'a BTreeMap<String, Vec<u8>>,
    boot: &[&str],
    on_demand: &[&str],
    extra: &[String],
) -> Result<Selection<'a>, BuildError> {
    let by_name: BTreeMap<String, (&str, &[u8])> =
        files.iter().map(|(path, content)| (name_of(path), (path.as_str(), content.as_slice()))).collect();
    let mut closure = Closure { by_name: &by_name, seen: BTreeSet::new() };
    let mut boot_modules = Vec::new();
    for name in boot {
        closure.add(name, None, &mut boot_modules)?;
    }
    let mut others = Vec::new();
    for name in on_demand.iter().copied().chain(extra.iter().map(String::as_str)) {
        closure.add(name, None, &mut others)?;
    }
    Ok(Selection { boot: boot_modules, on_demand: others })
}

struct Closure<'a, 'b> {
    by_name: &'b BTreeMap<String, (&'a str, &'a [u8])>,
    seen: BTreeSet<String>,
}

impl<'a> Closure<'a, '_> {
    /// Appends `name` to `order`, what it needs first. The depth is that of
    /// the dependencies, which the kernel's build keeps free of circles; `seen`
    /// stops a damaged package from recursing for ever.
    fn add(&mut self, name: &str, wanted_by: Option<&str>, order: &mut Vec<Module<'a>>) -> Result<(), BuildError> {
        let name = name.replace('-', "_");
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(&(path, content)) = self.by_name.get(&name) else {
            let wanted_by = wanted_by.map(str::to_owned);
            return Err(BuildError::ModuleUnknown { module: name, wanted_by });
        };
        let info = info(content).map_err(|source| BuildError::ModuleCorrupt { file: path.to_owned(), source })?;
        let depends: Vec<String> = values(&info, "depends")
            .flat_map(|list| list.split(','))
            .filter(|name| !name.is_empty())
            .map(|name| name.replace('-', "_"))
            .collect();
        let aliases = values(&info, "alias").map(str::to_owned).collect();
        for dependency in &depends {
            self.add(dependency, Some(&name), order)?;
        }
        order.push(Module { name, path, content: without_signature(content), depends, aliases });
        Ok(())
    }
}

/// Cuts off what `scripts/sign-file` of the kernel appended: signature, its
/// description (`struct module_signature`), magic.
///
/// A guest that verifies thirteen signatures boots 0.12 s later under
/// emulation, and learns nothing: the modules come from the same initramfs as
/// the agent that loads them, and the manifest has the digest of it all. The
/// kernel notes the missing signature as taint `E`. A kernel that insists on
/// signatures (`module.sig_enforce`) would need this undone.
fn without_signature(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    let cut = || {
        let (rest, description) = module.strip_suffix(MAGIC)?.split_last_chunk::<12>()?;
        let [_, _, _, signer, key, _, _, _, length @ ..] = *description;
        let signature = u32::from_be_bytes(length) as usize + usize::from(signer) + usize::from(key);
        rest.get(..rest.len().checked_sub(signature)?)
    };
    cut().unwrap_or(module)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko` is module `virtio_rng`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

/// The `key=value` strings of a module's `.modinfo` section.
fn info(module: &[u8]) -> Result<Vec<(String, String)>, object::Error> {
    let file = object::File::parse(module)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    let text = section.data()?;
    Ok(text
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn values<'a>(info: &'a [(String, String)], key: &str) -> impl Iterator<Item = &'a str> {
    info.iter().filter(move |(found, _)| found == key).map(|(_, value)| value.as_str())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A relocatable ELF file with nothing but a `.modinfo` section.
    pub fn module(info: &[&str]) -> Vec<u8> {
        let text: Vec<u8> = info.iter().flat_map(|entry| entry.bytes().chain([0])).collect();
        let names = b"\0.modinfo\0.shstrtab\0";
        let sections = 64 + text.len() + names.len();
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for half in [1_u16, 62] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(1_u32.to_le_bytes());
        for address in [0, 0, sections as u64] {
            elf.extend(u64::to_le_bytes(address));
        }
        elf.extend(0_u32.to_le_bytes());
        for half in [64_u16, 0, 0, 64, 3, 2] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(&text);
        elf.extend(names);
        let header = |name: u32, kind: u32, offset: usize, size: usize| {
            let mut bytes = Vec::new();
            for word in [name, kind] {
                bytes.extend(word.to_le_bytes());
            }
            for long in [0, 0, offset as u64, size as u64, 0, 1, 0] {
                bytes.extend(u64::to_le_bytes(long));
            }
            bytes
        };
        elf.extend(header(0, 0, 0, 0));
        elf.extend(header(1, 1, 64, text.len()));
        elf.extend(header(10, 3, 64 + text.len(), names.len()));
        elf
    }

    fn kernel(modules: &[(&str, &[&str])]) -> BTreeMap<String, Vec<u8>> {
        modules.iter().map(|(path, info)| ((*path).to_owned(), module(info))).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let kernel = kernel(&[
            ("kernel/a.ko", &["license=GPL", "depends=b,c-x", "alias=fs-a"]),
            ("kernel/b.ko", &["depends=c_x"]),
            ("kernel/c-x.ko", &["depends="]),
            ("kernel/d.ko", &["depends=b,e"]),
            ("kernel/e.ko", &[]),
            ("kernel/unused.ko", &[]),
        ]);
        let picked = select(&kernel, &["a"], &["d"], &["e".to_owned()]).unwrap();
        assert_eq!(picked.boot_names(), ["c_x", "b", "a"]);
        assert_eq!(picked.on_demand_names(), ["e", "d"]);
        assert_eq!(picked.boot[2].aliases, ["fs-a"]);
        assert_eq!(picked.boot[0].path, "kernel/c-x.ko");
    }

    #[test]
    fn missing_and_damaged_modules_are_named() {
        let kernel = BTreeMap::from([("a.ko".to_owned(), module(&["depends=zz"])), ("b.ko".to_owned(), vec![1, 2])]);
        let error = select(&kernel, &["a"], &[], &[]).unwrap_err();
        assert_eq!(error.to_string().split(':').next(), Some("kernel has no module zz (needed by a)"));
        let error = select(&kernel, &[], &[], &["q".to_owned()]).unwrap_err();
        assert_eq!(error.to_string().split(':').next(), Some("kernel has no module q"));
        assert!(
            matches!(select(&kernel, &["b"], &[], &[]), Err(BuildError::ModuleCorrupt { file, .. }) if file == "b.ko")
        );
    }

    #[test]
    fn signatures_are_cut_off() {
        let magic = "~Module signature appended~\n";
        let signed = |length: u8| {
            let description = [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, length];
            [&b"modulesig"[..], &description, magic.as_bytes()].concat()
        };
        assert_eq!(without_signature(&signed(3)), b"module");
        for whole in [signed(200), b"module".to_vec(), magic.as_bytes().to_vec()] {
            assert_eq!(without_signature(&whole), whole);
        }
    }

    #[test]
    fn a_circle_ends() {
        let kernel = kernel(&[("a.ko", &["depends=b"]), ("b.ko", &["depends=a"])]);
        assert_eq!(select(&kernel, &["a"], &[], &[]).unwrap().boot_names(), ["b", "a"]);
    }
}
