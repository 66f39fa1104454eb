//! virtio-vsock in user space, for hosts without `/dev/vhost-vsock`.
//!
//! ```text
//!  host program ──CONNECT n──► vsock.sock ┐                      ┌── receive ring ──► guest
//!  (shim, osc)  ◄── bytes ───  one socket ├── Switch ── Ring ────┤
//!                              each       ┘                      └── transmit ring ◄── guest
//!                                     QEMU ── vhost-user ── Backend (memory, rings, doorbells)
//! ```
//!
//! One thread does everything, by one `epoll`: nothing is locked against
//! anything, no wake-up can be lost between two threads, and an idle device
//! costs no processor time. Connections begin on the host only.
//!
//! Dialling early is safe at any time: a connection waits, unsent, until the
//! guest's driver has set up its rings; whatever happens to it there, the
//! program sees its socket closed and dials again. When QEMU goes, every socket
//! is closed.
//!
//! Protocols: virtio 1.2 section 5.10 (socket device) and 2.7 (split rings);
//! vhost-user as in QEMU's `docs/interop/vhost-user.rst`; `CONNECT <port>` as in
//! Firecracker and Cloud Hypervisor.
//!
//! The attacker is the guest: see [`switch`] and [`ring`].

use std::{
    io,
    os::unix::net::UnixListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};
use tokio::sync::watch;
use vhost::vhost_user::BackendReqHandler;

use self::{
    backend::{Backend, DOORBELL, RINGS},
    switch::Switch,
};

mod backend;
mod connection;
mod credit;
mod host;
mod memory;
mod packet;
mod ring;
mod switch;
#[cfg(test)]
mod tests;

/// Tokens beyond host ports, which are 32 bits.
const QEMU_KNOCKS: u64 = 1 << 32;
const QEMU: u64 = QEMU_KNOCKS + 1;
const DIALLED: u64 = QEMU_KNOCKS + 2;
const STOP: u64 = QEMU_KNOCKS + 3;

/// Events taken at once.
const EVENTS: usize = 64;

/// The thread copies packets by way of the heap; its stack holds a list of
/// events and little else.
const STACK: usize = 256 << 10;

/// A running device. Dropping it asks the thread to end.
#[derive(Debug)]
pub struct Device {
    stop: Arc<EventFd>,
    alive: watch::Receiver<()>,
}

impl Device {
    /// Starts the device: QEMU connects to `qemu`, host programs to `dial`.
    ///
    /// # Errors
    /// What the kernel says to one more thread or descriptor.
    pub fn start(qemu: UnixListener, dial: UnixListener) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (living, alive) = watch::channel(());
        let device = Thread::new(qemu, dial, stop.clone())?;
        thread::Builder::new().name("vsock".into()).stack_size(STACK).spawn(move || {
            if let Err(error) = device.run() {
                tracing::error!(error = %error, "vsock device failed");
            }
            drop(living);
        })?;
        Ok(Self { stop, alive })
    }

    /// Waits until the device is no more: QEMU disconnected, or it was asked to
    /// stop. Cancel-safe.
    pub async fn ended(&self) {
        // Nothing is ever sent, so the only change is the sender's end.
        let _ = self.alive.clone().changed().await;
    }

    /// Asks the thread to end and to close every connection.
    pub fn stop(&self) {
        // Fails only when the counter is full, and then the thread has been told.
        let _ = self.stop.write(1);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether the loop goes on.
enum Flow {
    Goes,
    Ends,
}

struct Thread {
    epoll: Arc<Epoll>,
    qemu_knocks: Option<UnixListener>,
    dialled: UnixListener,
    backend: Arc<Mutex<Backend>>,
    qemu: Option<BackendReqHandler<Mutex<Backend>>>,
    _stop: Arc<EventFd>,
}

impl Thread {
    fn new(qemu: UnixListener, dial: UnixListener, stop: Arc<EventFd>) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        dial.set_nonblocking(true)?;
        epoll.add(&qemu, EpollEvent::new(EpollFlags::EPOLLIN, QEMU_KNOCKS))?;
        epoll.add(&dial, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, DIALLED))?;
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let backend = Backend::new(epoll.clone(), Switch::new(epoll.clone()))?;
        Ok(Self {
            epoll,
            qemu_knocks: Some(qemu),
            dialled: dial,
            backend: Arc::new(Mutex::new(backend)),
            qemu: None,
            _stop: stop,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut busy = false;
        loop {
            let timeout = if busy { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                if let Flow::Ends = self.handle(event)? {
                    return Ok(());
                }
            }
            busy = self.with_backend(Backend::work);
        }
    }

    fn handle(&mut self, event: &EpollEvent) -> io::Result<Flow> {
        match event.data() {
            STOP => return Ok(Flow::Ends),
            QEMU_KNOCKS => self.meet_qemu()?,
            QEMU => return Ok(self.serve_qemu()),
            DIALLED => self.accept(),
            token @ DOORBELL.. if token < DOORBELL + RINGS as u64 => self.with_backend(|b| b.answer_doorbell(token)),
            token => {
                let port = u32::try_from(token).unwrap_or_default();
                self.with_backend(|b| b.switch.host_event(port, event.events()));
            }
        }
        Ok(Flow::Goes)
    }

    /// QEMU connects once and for all.
    fn meet_qemu(&mut self) -> io::Result<()> {
        let Some(listener) = self.qemu_knocks.take() else { return Ok(()) };
        let (stream, _) = listener.accept()?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, QEMU))?;
        self.qemu = Some(BackendReqHandler::from_stream(stream, self.backend.clone()));
        Ok(())
    }

    fn serve_qemu(&mut self) -> Flow {
        let Some(qemu) = &mut self.qemu else { return Flow::Goes };
        match qemu.handle_request() {
            Ok(()) => Flow::Goes,
            // An answer QEMU did not ask for is no reason to leave it: it decides whether it can go on.
            Err(vhost::vhost_user::Error::ReqHandlerError(error)) => {
                tracing::warn!(error = %error, "vsock device refused a request of QEMU");
                Flow::Goes
            }
            Err(vhost::vhost_user::Error::Disconnected | vhost::vhost_user::Error::SocketBroken(_)) => Flow::Ends,
            Err(error) => {
                tracing::error!(error = %error, "vsock device cannot go on with QEMU");
                Flow::Ends
            }
        }
    }

    /// Takes on everybody who dialled. Told once for each new dial, so that a
    /// shortage of descriptors is tried again then and not in a circle.
    fn accept(&self) {
        loop {
            match self.dialled.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.with_backend(|backend| backend.switch.accept(stream)) {
                        tracing::warn!(error = %error, "vsock connection refused");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::warn!(error = %error, "cannot accept a vsock connection"),
            }
        }
    }

    fn with_backend<T>(&self, act: impl FnOnce(&mut Backend) -> T) -> T {
        // One thread only: the lock is there because the handler of the protocol wants to share.
        act(&mut self.backend.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
