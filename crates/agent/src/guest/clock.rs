//! Time and randomness, both of which a restored guest has stale.

use std::{fs::OpenOptions, io::Write, path::Path};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};

use super::{GuestError, Result, failed};

const RANDOM: &str = "/dev/random";

/// Sets the wall clock.
///
/// # Errors
/// [`GuestError`] when the time is out of range or the kernel refuses it.
pub fn set_time(seconds: i64, microseconds: i64) -> Result<()> {
    if !(0..1_000_000).contains(&microseconds) {
        return Err(GuestError::Invalid { field: "Usec", value: microseconds.to_string(), wanted: "give 0 to 999999" });
    }
    let time = TimeSpec::new(seconds, microseconds * 1000);
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| GuestError::Clock(errno.into()))
}

/// Mixes `data` into the random generator, credits it as unpredictable and makes
/// what the generator gives out from now on depend on it.
///
/// # Errors
/// [`GuestError`] when the device refuses.
pub fn reseed(data: &[u8]) -> Result<()> {
    let path = Path::new(RANDOM);
    let mut device = OpenOptions::new().write(true).open(path).map_err(failed("open", path))?;
    device.write_all(data).map_err(failed("write", path))?;
    let bits = i32::try_from(data.len().saturating_mul(8)).unwrap_or(i32::MAX);
    crate::sys::reseed(&device, bits).map_err(|errno| failed("reseed", path)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_takes_a_seed() {
        reseed(&[7; 512]).unwrap();
    }

    #[test]
    fn microseconds_stay_below_a_second() {
        for bad in [-1, 1_000_000] {
            assert!(matches!(set_time(0, bad), Err(GuestError::Invalid { field: "Usec", .. })));
        }
    }
}
