//! Kubernetes quantities (`500m`, `128Mi`, `1e3`).

/// Parses a quantity in thousandths, rounding up as Kubernetes does. `None` when
/// it is malformed, negative, or too large to matter on any machine.
pub fn thousandths(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    // value = mantissa / 10^digits * scale
    let digits = format!("{whole}{fraction}");
    let mantissa: u128 = digits.parse().ok()?;
    let divisor = 10_u128.pow(fraction.len() as u32);
    let (multiply, divide) = scale(suffix)?;
    let scaled = mantissa.checked_mul(multiply)?.checked_mul(1000)?;
    u64::try_from(scaled.div_ceil(divisor * divide)).ok()
}

/// Whole units, rounded up: bytes of memory.
pub fn units(text: &str) -> Option<u64> {
    thousandths(text).map(|thousandths| thousandths.div_ceil(1000))
}

fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi"].iter().position(|&s| s == suffix);
    let decimal = ["", "k", "M", "G", "T", "P"].iter().position(|&s| s == suffix);
    if let Some(power) = binary {
        return Some((1 << (10 * power), 1));
    }
    if let Some(power) = decimal {
        return Some((1000_u128.pow(power as u32), 1));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|digits| digits.parse::<i8>().ok());
    match (suffix, exponent) {
        ("m", _) => Some((1, 1000)),
        ("u", _) => Some((1, 1_000_000)),
        ("n", _) => Some((1, 1_000_000_000)),
        (_, Some(power @ 0..=15)) => Some((10_u128.pow(power.unsigned_abs().into()), 1)),
        (_, Some(power @ -9..=-1)) => Some((1, 10_u128.pow(power.unsigned_abs().into()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, want) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.", Some(1000)),
            ("0", Some(0)),
            ("128Mi", Some(128 * 1024 * 1024 * 1000)),
            ("1.5Gi", Some(3 * 512 * 1024 * 1024 * 1000)),
            ("1k", Some(1_000_000)),
            ("1e3", Some(1_000_000)),
            ("5e-1", Some(500)),
            ("1n", Some(1)),
            ("", None),
            ("Mi", None),
            ("-1", None),
            ("1 Gi", None),
            ("1.2.3", None),
            ("1Zi", None),
            ("99999999Pi", None),
        ] {
            assert_eq!(thousandths(text), want, "{text}");
        }
        assert_eq!(units("1m"), Some(1));
    }
}
