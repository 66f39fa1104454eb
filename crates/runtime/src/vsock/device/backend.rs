//! What QEMU asks of the device: features, guest memory, rings.
//!
//! The vhost-user protocol itself is the `vhost` crate's; this is its handler,
//! called on the device's only thread. QEMU is trusted to speak it correctly and
//! not to survive a wrong answer; the guest has no say here.

use std::{
    fs::File,
    io::{self, Read},
    sync::{Arc, atomic::Ordering},
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
    message::{
        VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
        VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
        VhostUserVringAddrFlags, VhostUserVringState,
    },
};
use virtio_queue::QueueT;

use super::{
    memory::{Memory, REGIONS},
    packet::GUEST_CID,
    ring::{Ring, Scratch},
    switch::Switch,
};

/// Rings of ours, for the guest to receive and to transmit; the third of the
/// standard, for events, is QEMU's.
pub const RINGS: usize = 2;

/// Token of the first ring's doorbell; the others follow.
pub const DOORBELL: u64 = 1 << 40;

const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// The device as QEMU and the guest know it.
pub struct Backend {
    epoll: Arc<Epoll>,
    memory: Memory,
    rings: [Ring; RINGS],
    doorbells: [Option<File>; RINGS],
    scratch: Scratch,
    /// The host programs' side.
    pub switch: Switch,
}

impl Backend {
    /// A device no guest knows of yet. Doorbells will be watched by `epoll`.
    ///
    /// # Errors
    /// None in practice; see [`Ring::new`].
    pub fn new(epoll: Arc<Epoll>, switch: Switch) -> io::Result<Self> {
        let ring = || Ring::new().map_err(io::Error::other);
        Ok(Self {
            epoll,
            memory: Memory::default(),
            rings: [ring()?, ring()?],
            doorbells: [None, None],
            scratch: Scratch::new(),
            switch,
        })
    }

    /// The guest rang for the ring of this token.
    pub fn answer_doorbell(&mut self, token: u64) {
        let index = token.wrapping_sub(DOORBELL) as usize;
        if let Some(Some(doorbell)) = self.doorbells.get_mut(index) {
            let mut count = [0; 8];
            // Nothing to read is no news either way.
            let _ = doorbell.read(&mut count);
        }
    }

    /// Moves packets both ways while there are any; `true` asks to be called
    /// again soon, after others had their turn.
    pub fn work(&mut self) -> bool {
        let [receive, transmit] = &mut self.rings;
        if !receive.live() || !transmit.live() {
            return false;
        }
        let memory = &self.memory.mapped;
        let taken = transmit.take(memory, &mut self.switch, &mut self.scratch);
        let given = receive.give(memory, &mut self.switch, &mut self.scratch);
        match (taken, given) {
            (Ok(taken), Ok(given)) => {
                self.memory.touched(taken.touched + given.touched);
                // What was given may have made room for what is to be taken.
                taken.more || given.more || given.touched > 0
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(error = %error, "guest broke its vsock ring: device stopped until its driver restarts");
                self.switch.driver_broken();
                for ring in &mut self.rings {
                    ring.queue.set_ready(false);
                }
                false
            }
        }
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        self.rings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    fn unwatch(&mut self, index: usize) {
        if let Some(doorbell) = self.doorbells[index].take() {
            // QEMU holds the descriptor too, so closing ours alone would leave it watched.
            if let Err(error) = self.epoll.delete(&doorbell) {
                tracing::warn!(ring = index, error = %error, "cannot stop watching a vsock doorbell");
            }
        }
    }
}

fn handler_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

const UNSUPPORTED: Error = Error::InvalidOperation("not offered by this device");

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in 0..RINGS {
            self.unwatch(index);
            self.rings[index].queue.reset();
            self.rings[index].enabled = false;
        }
        self.switch.driver_started();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(VERSION_1 | EVENT_INDEX | INDIRECT_DESCRIPTORS | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        for ring in &mut self.rings {
            ring.queue.set_event_idx(features & EVENT_INDEX != 0);
            // Without the feature there is no message that would enable a ring.
            ring.enabled |= features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        self.memory = Memory::default();
        for (region, file) in regions.iter().zip(files) {
            self.memory.map(region, file)?;
        }
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        self.memory.map(region, file).map(|()| None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.memory.unmap(region)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.queue.try_set_size(size).map_err(handler_error)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let descriptor = self.memory.guest_address(descriptor)?;
        let available = self.memory.guest_address(available)?;
        let used = self.memory.guest_address(used)?;
        let mapped = self.memory.mapped.clone();
        let queue = &mut self.ring(index)?.queue;
        queue.try_set_desc_table_address(descriptor).map_err(handler_error)?;
        queue.try_set_avail_ring_address(available).map_err(handler_error)?;
        queue.try_set_used_ring_address(used).map_err(handler_error)?;
        // QEMU tells where reading goes on, and leaves where writing goes on to the ring itself.
        let next = queue.used_idx(&mapped, Ordering::Acquire).map_err(handler_error)?;
        queue.set_next_used(next.0);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let next = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.queue.set_next_avail(next);
        if base == 0 {
            // A ring that goes on elsewhere belongs to a virtual machine that was paused, and so do its connections.
            self.switch.driver_started();
        }
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index)?;
        ring.queue.set_ready(false);
        ring.call = None;
        let next = ring.queue.next_avail();
        self.unwatch(index as usize);
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(u32::from(index))?;
        self.unwatch(usize::from(index));
        let doorbell = fd.ok_or(UNSUPPORTED)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, DOORBELL + u64::from(index));
        self.epoll.add(&doorbell, event).map_err(|errno| Error::ReqHandlerError(errno.into()))?;
        self.doorbells[usize::from(index)] = Some(doorbell);
        self.ring(u32::from(index))?.queue.set_ready(true);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(u32::from(index))?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        self.ring(u32::from(index)).map(|_| ())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(RINGS as u64)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let config = GUEST_CID.to_le_bytes();
        let range = offset as usize..offset.saturating_add(size) as usize;
        config.get(range).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(UNSUPPORTED)
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(UNSUPPORTED)
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(UNSUPPORTED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(UNSUPPORTED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(UNSUPPORTED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(UNSUPPORTED)
    }
}
