//! Amounts such as `100m`, `1.5Gi` or `2e3`, exact to a billionth and capped at 2⁶³−1 as Kubernetes
//! has them.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde_json::Value;

/// One unit in billionths, the finest amount there is.
const NANOS: i128 = 1_000_000_000;
/// The largest amount in billionths.
const MAX: i128 = i64::MAX as i128 * NANOS;
/// Longest text that is looked at; nothing sensible comes near.
const MAX_LENGTH: usize = 128;

/// How a quantity was written, and how it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `k`, `M`, `G`, … and `m`, `u`, `n`.
    Decimal,
    /// `Ki`, `Mi`, `Gi`, …
    Binary,
    /// `e3`, `E6`, …
    Exponent,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is no number.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Malformed,
    /// What follows the number is no known suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// Whole units, printed with decimal suffixes.
    pub fn units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS, format: Format::Decimal }.capped()
    }

    /// Thousandths, printed with decimal suffixes.
    pub fn milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANOS / 1000), format: Format::Decimal }.capped()
    }

    /// Bytes, printed with binary suffixes.
    pub fn bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS, format: Format::Binary }.capped()
    }

    /// Reads a quantity from JSON, where it may also be a number.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Malformed),
        }
    }

    /// Thousandths, rounded up.
    pub fn as_milli(&self) -> i64 {
        saturate(div_away(self.nanos, NANOS / 1000))
    }

    /// Whole units, rounded up.
    pub fn as_units(&self) -> i64 {
        saturate(div_away(self.nanos, NANOS))
    }

    /// Whether this is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether this is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether this is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The sum; it keeps the way this one is written unless this one is nothing.
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos + other.nanos, format }.capped()
    }

    /// The difference; it keeps the way this one is written unless this one is nothing.
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { nanos: -other.nanos, format: other.format })
    }

    fn capped(mut self) -> Self {
        self.nanos = self.nanos.clamp(-MAX, MAX);
        self
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.len() > MAX_LENGTH {
            return Err(QuantityError::Malformed);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Malformed);
        }
        let (format, binary_power, decimal_power) = parse_suffix(suffix)?;
        let nanos = scale(whole, fraction, binary_power, decimal_power).min(MAX);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// Format, power of two and power of ten of a suffix.
fn parse_suffix(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    let decimal = |power| Ok((Format::Decimal, 0, power));
    let binary = |power| Ok((Format::Binary, power, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let power: i32 = power.parse().map_err(|_| QuantityError::Suffix)?;
            Ok((Format::Exponent, 0, power.clamp(-64, 64)))
        }
    }
}

/// `whole.fraction × 2^binary × 10^decimal` in billionths, rounded up, [`MAX`] when too large.
fn scale(whole: &str, fraction: &str, binary: u32, decimal: i32) -> i128 {
    /// Digits after the point that can matter: eighteen for `E`, nine below one unit, two to spare.
    const FRACTION: usize = 18;
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    let cut = &fraction[..fraction.len().min(FRACTION)];
    let lost = fraction.len() > FRACTION;
    let digits = [whole, cut].concat();
    let Some(digits) = (if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() }) else { return MAX };
    let Some(digits) = digits.checked_mul(1_i128 << binary) else { return MAX };
    let power = 9 + decimal - i32::try_from(cut.len()).unwrap_or(0);
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    let (value, exact) = match (power >= 0, factor) {
        (true, Some(factor)) => match digits.checked_mul(factor) {
            Some(value) => (value, true),
            None => return MAX,
        },
        (true, None) if digits == 0 => (0, true),
        (true, None) => return MAX,
        (false, Some(factor)) => (digits / factor, digits % factor == 0),
        (false, None) => (0, digits == 0),
    };
    if exact && !lost { value } else { value.saturating_add(1) }
}

fn div_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match value % by {
        0 => quotient,
        rest => quotient + rest.signum(),
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANOS {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let mut value = self.nanos / NANOS;
            let mut power = 0;
            while value % 1024 == 0 && power < SUFFIXES.len() - 1 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", SUFFIXES[power]);
        }
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let mut value = self.nanos;
        let mut power = 0;
        while value % 1000 == 0 && power < SUFFIXES.len() - 1 {
            value /= 1000;
            power += 1;
        }
        match (self.format, power) {
            (Format::Exponent, 3) => write!(f, "{value}"),
            (Format::Exponent, power) => write!(f, "{value}e{}", i64::try_from(power).unwrap_or(0) * 3 - 9),
            (_, power) => write!(f, "{value}{}", SUFFIXES[power]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_becomes_canonical() {
        let rows = [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("+7", "7"),
            ("-3", "-3"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1500e0", "1500"),
            ("12E6", "12e6"),
            ("1e-3", "1e-3"),
            ("0.1n", "1n"),
            ("1n", "1n"),
            ("0.0000000001", "1n"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999999999999999999999999999999", "9223372036854775807"),
            ("-100E", "-9223372036854775807"),
            ("1e99999", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("1.123456789012345678E", "1123456789012345678"),
        ];
        for (text, want) in rows {
            let got = text.parse::<Quantity>().map(|quantity| quantity.to_string());
            assert_eq!(got.as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "x", "1 ", " 1", "1.2.3", "--1", "1mm", "1ki", "1e", "1e1.5", "Mi", ".", "1Kib", "1\u{1F600}"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        assert!(Quantity::from_value(&Value::Null).is_err());
        assert_eq!(Quantity::from_value(&serde_json::json!(0.5)), Ok(Quantity::milli(500)));
    }

    #[test]
    fn amounts_are_compared_and_added_across_suffixes() {
        let q = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(q("1Ki"), q("1024"));
        assert!(q("1M") < q("1Mi"));
        assert_eq!(q("250m").plus(&q("0.75")).to_string(), "1");
        assert_eq!(Quantity::ZERO.plus(&q("160Mi")).to_string(), "160Mi");
        assert_eq!(q("1Gi").minus(&q("1Mi")).to_string(), "1023Mi");
        assert_eq!((q("1n").as_milli(), q("1500m").as_units(), q("-1500m").as_units()), (1, 2, -2));
    }

    proptest! {
        #[test]
        fn canonical_forms_stay_as_they_are(text in "[+-]?[0-9]{0,30}(\\.[0-9]{0,25})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[+-]?[0-9]{1,3})?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let canonical = quantity.to_string();
                let again: Quantity = canonical.parse().unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), canonical);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
