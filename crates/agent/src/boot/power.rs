//! The end of a guest.

use std::convert::Infallible;

use nix::{
    errno::Errno,
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};

/// Writes back what is dirty and turns the machine off. Returns only if the
/// kernel refuses.
///
/// # Errors
/// The refusal.
pub fn power_off() -> Result<Infallible, Errno> {
    sync();
    reboot(RebootMode::RB_POWER_OFF)
}
