//! Guest memory as seen from this process.
//!
//! Every guest page a packet ever lay in would stay mapped here and, in time,
//! count all of the guest's memory as this process's. So the pages are let go
//! again after some traffic; they stay where they are, only our view of them
//! ends and is made anew on the next use.

use std::{fs::File, io, sync::Arc};

use vhost::vhost_user::{Error, Result, message::VhostUserMemoryRegion};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use crate::vsock::sys;

/// Regions of guest memory; QEMU needs one for each hot-plugged module.
pub const REGIONS: usize = 64;

/// Memory touched before pages are let go: what may count as ours at any time.
const HELD: usize = 2 << 20;

/// One piece of guest memory and where QEMU sees it.
#[derive(Debug)]
struct Mapping {
    qemu: u64,
    guest: u64,
    size: u64,
}

/// The guest's memory, and its addresses as QEMU names them.
#[derive(Debug, Default)]
pub struct Memory {
    /// The mapped regions.
    pub mapped: GuestMemoryMmap,
    mappings: Vec<Mapping>,
    touched: usize,
}

impl Memory {
    /// Maps one region, shared with QEMU.
    ///
    /// # Errors
    /// Too many regions, one that overlaps another, or what the kernel says.
    pub fn map(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<()> {
        if self.mappings.len() >= REGIONS {
            return Err(Error::InvalidParam);
        }
        let start = GuestAddress(region.guest_phys_addr);
        let mapped = GuestRegionMmap::new(region.mmap_region(file)?, start).ok_or(Error::InvalidParam)?;
        self.mapped = self.mapped.insert_region(Arc::new(mapped)).map_err(refused)?;
        self.mappings.push(Mapping { qemu: region.user_addr, guest: region.guest_phys_addr, size: region.memory_size });
        Ok(())
    }

    /// Unmaps one region.
    ///
    /// # Errors
    /// There is no such region.
    pub fn unmap(&mut self, region: &VhostUserMemoryRegion) -> Result<()> {
        let start = GuestAddress(region.guest_phys_addr);
        let (mapped, _) = self.mapped.remove_region(start, region.memory_size).map_err(refused)?;
        self.mapped = mapped;
        self.mappings.retain(|mapping| mapping.guest != region.guest_phys_addr);
        Ok(())
    }

    /// The guest's name for an address of QEMU's.
    ///
    /// # Errors
    /// It lies in no region.
    pub fn guest_address(&self, qemu: u64) -> Result<GuestAddress> {
        let hit = self.mappings.iter().find(|m| (m.qemu..m.qemu.saturating_add(m.size)).contains(&qemu));
        hit.map(|m| GuestAddress(qemu - m.qemu + m.guest)).ok_or(Error::InvalidParam)
    }

    /// Notes that `bytes` of guest memory were touched, and lets pages go when it
    /// is time.
    pub fn touched(&mut self, bytes: usize) {
        self.touched += bytes;
        if self.touched >= HELD {
            self.touched = 0;
            self.let_go();
        }
    }

    fn let_go(&self) {
        for region in self.mapped.iter() {
            if let Err(error) = sys::let_pages_go(region) {
                // Costs memory, nothing else: huge pages of an old kernel refuse.
                tracing::debug!(error = %error, "guest pages stay mapped in the vsock device");
            }
        }
    }
}

fn refused(error: vm_memory::GuestRegionCollectionError) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vm_memory::Bytes;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn guest_ram(size: u64) -> File {
        let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(size).unwrap();
        file
    }

    /// KiB of shared pages mapped by this process right now.
    fn shared_pages(memory: &Memory) -> u64 {
        let start = memory.mapped.iter().next().unwrap().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let from = maps.find(&format!("{start:x}-")).unwrap();
        let line = maps[from..].lines().find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn addresses_of_qemu_become_addresses_of_the_guest() {
        let mut memory = Memory::default();
        memory.map(&VhostUserMemoryRegion::new(0, MIB, 0x7000_0000, 0), guest_ram(MIB)).unwrap();
        memory.map(&VhostUserMemoryRegion::new(4 * MIB, MIB, 0x9000_0000, 0), guest_ram(MIB)).unwrap();
        let rows = [
            (0x7000_0000, Some(0)),
            (0x7000_0000 + MIB - 1, Some(MIB - 1)),
            (0x7000_0000 + MIB, None),
            (0x9000_0010, Some(4 * MIB + 0x10)),
            (0, None),
            (u64::MAX, None),
        ];
        for (qemu, want) in rows {
            assert_eq!(memory.guest_address(qemu).ok().map(|a| a.0), want, "{qemu:#x}");
        }
        memory.unmap(&VhostUserMemoryRegion::new(0, MIB, 0, 0)).unwrap();
        assert!(memory.guest_address(0x7000_0000).is_err());
        assert!(memory.unmap(&VhostUserMemoryRegion::new(0, MIB, 0, 0)).is_err());
    }

    #[test]
    fn pages_are_let_go_and_keep_their_contents() {
        let mut memory = Memory::default();
        memory.map(&VhostUserMemoryRegion::new(0, 64 * MIB, 0, 0), guest_ram(64 * MIB)).unwrap();
        assert_eq!(shared_pages(&memory), 0);
        for at in (0..32 * MIB).step_by(4096) {
            memory.mapped.write_obj(at, GuestAddress(at)).unwrap();
            memory.touched(4096);
            assert!(at % MIB != 0 || shared_pages(&memory) <= 2048 + 4);
        }
        assert!((0..32 * MIB).step_by(4096).all(|at| memory.mapped.read_obj::<u64>(GuestAddress(at)).unwrap() == at));
    }
}
