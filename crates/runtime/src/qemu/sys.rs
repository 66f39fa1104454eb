//! The one processor instruction the standard library does not wrap.
#![allow(unsafe_code)]

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Long enough for an error below 100 parts in a million, which the guest
/// corrects by itself within its first second.
const SPAN: Duration = Duration::from_millis(1);
/// One of these is not interrupted.
const TRIES: u32 = 5;

/// Rate of the host's time stamp counter in kHz, measured once by a millisecond
/// of spinning.
pub(super) fn tsc_khz() -> Option<u64> {
    static RATE: OnceLock<Option<u64>> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (ticks, began) = sample();
        while began.elapsed() < SPAN {
            std::hint::spin_loop();
        }
        let (more_ticks, ended) = sample();
        let nanos = u64::try_from(ended.duration_since(began).as_nanos()).ok()?;
        more_ticks.checked_sub(ticks)?.checked_mul(1_000_000)?.checked_div(nanos)
    })
}

/// Counter and clock at the same moment.
fn sample() -> (u64, Instant) {
    let tries = (0..TRIES).map(|_| {
        let (before, now, after) = (counter(), Instant::now(), counter());
        (after.wrapping_sub(before), before, now)
    });
    let (span, before, now) = tries.min_by_key(|(span, ..)| *span).expect("there are tries");
    (before + span / 2, now)
}

fn counter() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_a_real_processor() {
        let khz = tsc_khz().unwrap();
        assert!((500_000..10_000_000).contains(&khz), "{khz}");
        assert_eq!(tsc_khz(), Some(khz));
    }
}
