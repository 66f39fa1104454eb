//! Our own terminal while a process in a container owns it.

use std::{
    io::{IsTerminal, Read, stdin, stdout},
    os::fd::AsFd,
    thread,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use osc_node::stream::Size;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::Failure;

/// Pieces of standard input that may wait for the container.
const PIECES: usize = 8;
/// Largest piece.
const PIECE: usize = 16 << 10;

/// Keys go to the container as they are typed until this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Option<Termios>,
}

impl Raw {
    /// Changes the terminal if standard input is one.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Self, Failure> {
        if !stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin().as_fd()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, &raw).map_err(std::io::Error::from)?;
        Ok(Self { before: Some(before) })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSADRAIN, before); // the terminal may be gone
        }
    }
}

/// Whether both ends of a conversation are a terminal.
pub fn is_interactive() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Standard input in pieces; the channel closes at its end. It is read on a thread
/// of its own, which nobody waits for: a read cannot be called off.
pub fn input() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(PIECES);
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = stdin().read(&mut buffer) {
            if send.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receive
}

/// Sizes of the terminal: the present one, then every new one. An empty channel
/// where there is no terminal.
///
/// # Errors
/// When changes cannot be listened to.
pub fn sizes() -> Result<mpsc::Receiver<Size>, Failure> {
    let (send, receive) = mpsc::channel(2);
    let Some(present) = size() else { return Ok(receive) };
    let mut changed = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        // A program that has drawn before we were attached draws again when the
        // size changes, and only then.
        let other = Size { height: present.height.saturating_add(1), ..present };
        for size in [other, present] {
            if send.send(size).await.is_err() {
                return;
            }
        }
        while let Some(size) = tokio::select! {
            changed = changed.recv() => changed.and_then(|()| size()),
            () = send.closed() => None,
        } {
            if send.send(size).await.is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

fn size() -> Option<Size> {
    let (width, height) = terminal_size::terminal_size()?;
    Some(Size { width: width.0, height: height.0 })
}
