//! Memory of the guest as a file system: pod shm, memory volumes, huge pages.

use std::{fs, path::Path};

use osc_agent_protocol::agent::Storage;

use super::{StorageError, Undo, local, mount};

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Mounts the storage. `fsgid=` is ours, everything else the file system's.
pub(super) fn make(storage: &Storage, mount_point: &Path) -> Result<Undo, StorageError> {
    if storage.fstype == "hugetlbfs" {
        reserve_huge_pages(storage, mount_point)?;
    }
    let undo = mount::mount(&without_group(storage), &storage.source, mount_point)?;
    if let Some(gid) = local::group(&storage.options, mount_point)? {
        mount::give_to_group(mount_point, gid)?;
    }
    Ok(undo)
}

/// Remounts an existing storage with the options of this one.
pub(super) fn remount(storage: &Storage, mount_point: &Path) -> Result<(), StorageError> {
    let mut storage = without_group(storage);
    if !storage.options.iter().any(|option| option == "remount") {
        storage.options.insert(0, "remount".into());
    }
    mount::mount(&storage, &storage.source, mount_point).map(drop)
}

fn without_group(storage: &Storage) -> Storage {
    let mut storage = storage.clone();
    storage.options.retain(|option| !option.starts_with("fsgid="));
    storage
}

/// Takes the pages a volume of this size needs out of ordinary memory, in
/// addition to those other volumes have.
fn reserve_huge_pages(storage: &Storage, mount_point: &Path) -> Result<(), StorageError> {
    let page_kib = size_option(storage, "pagesize=", mount_point)? >> 10;
    let size_kib = size_option(storage, "size=", mount_point)? >> 10;
    let file = Path::new(HUGE_PAGES).join(format!("hugepages-{page_kib}kB/nr_hugepages"));
    let failed = |action| {
        let path = file.clone();
        move |source| StorageError::File { action, path, source }
    };
    let read = || -> Result<u64, StorageError> {
        let text = fs::read_to_string(&file).map_err(failed("read"))?;
        Ok(text.trim().parse().unwrap_or(0))
    };
    let wanted = read()? + size_kib.div_ceil(page_kib.max(1));
    fs::write(&file, wanted.to_string()).map_err(failed("write"))?;
    let got = read()?;
    if got < wanted { Err(StorageError::HugePages { page_kib, wanted, got }) } else { Ok(()) }
}

fn size_option(storage: &Storage, name: &str, mount_point: &Path) -> Result<u64, StorageError> {
    let text = storage.options.iter().find_map(|o| o.strip_prefix(name)).unwrap_or_default();
    bytes(text).filter(|n| *n >= 1024).ok_or_else(|| StorageError::Option {
        path: mount_point.into(),
        option: format!("{name}{text}"),
        cure: "give a size of at least 1 KiB, such as 2M",
    })
}

/// A size in bytes with an optional binary suffix: `2097152`, `2M`, `1Gi`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim_end_matches('B').trim_end_matches('i').to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_suffix() {
        for (text, want) in [
            ("2097152", Some(2 << 20)),
            ("2M", Some(2 << 20)),
            ("2Mi", Some(2 << 20)),
            ("2MB", Some(2 << 20)),
            ("1Gi", Some(1 << 30)),
            ("64k", Some(64 << 10)),
            ("", None),
            ("M", None),
            ("2x", None),
            ("99999999999999999999", None),
            ("18446744073709551615G", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
