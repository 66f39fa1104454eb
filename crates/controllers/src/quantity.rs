//! Resource quantities as numbers: `100m`, `1.5Gi`, `2e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths, rounded up. `None` if it is no quantity.
/// Values beyond the range of `i64` saturate.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    nano(&quantity.0).map(|nano| clamp(div_up(nano, 1_000_000)))
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole(quantity: &Quantity) -> Option<i64> {
    nano(&quantity.0).map(|nano| clamp(div_up(nano, 1_000_000_000)))
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

/// Billionths. Bounded: more digits than any number of the cluster has are refused.
fn nano(text: &str) -> Option<i128> {
    let text = text.trim();
    if text.len() > 40 {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (int, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (int.is_empty() && fraction.is_empty()) || !all_digits(int) || !all_digits(fraction) || int.len() > 19 {
        return None;
    }
    let int: i128 = if int.is_empty() { 0 } else { int.parse().ok()? };
    // Nine places keep billionths of a unit; binary suffixes make more of them, so keep twelve.
    let places: String = fraction.chars().chain(std::iter::repeat('0')).take(12).collect();
    let value = int.checked_mul(1_000_000_000_000)?.checked_add(places.parse().ok()?)?;
    let (multiply, divide) = scale(suffix)?;
    let value = div_up(value.saturating_mul(multiply), divide.checked_mul(1_000)?);
    Some(if negative { -value } else { value })
}

/// Factor of a suffix as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => Some((1_000, 1)),
        "M" => Some((1_000_000, 1)),
        "G" => Some((1_000_000_000, 1)),
        "T" => Some((1_000_000_000_000, 1)),
        "P" => Some((1_000_000_000_000_000, 1)),
        "E" => Some((1_000_000_000_000_000_000, 1)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            (exponent.unsigned_abs() <= 18).then_some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, want) in [
            ("1", Some(1_000)),
            ("100m", Some(100)),
            ("1.5", Some(1_500)),
            (".5", Some(500)),
            ("2e3", Some(2_000_000)),
            ("1E2", Some(100_000)),
            ("1E", Some(1_000_000_000_000_000_000_i64.saturating_mul(1_000))),
            ("5e-1", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1u", Some(1)),
            ("0", Some(0)),
            ("-1", Some(-1_000)),
            ("9999999999999999999E", Some(i64::MAX)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1.2.3", None),
            ("--1", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(milli(&Quantity(text.into())), want, "{text}");
        }
        assert_eq!(whole(&Quantity("1500m".into())), Some(2));
    }
}
