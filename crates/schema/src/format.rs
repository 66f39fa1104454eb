//! Formats of strings and numbers that Kubernetes knows. Unknown formats mean nothing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;
use serde_json::Number;

/// Whether `text` has the format called `name`.
pub fn text_fits(name: &str, text: &str) -> bool {
    match name {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "uri" => matches(&URI, text),
        "hostname" => text.len() <= 255 && matches(&HOSTNAME, text),
        "email" => matches(&EMAIL, text),
        "mac" => matches(&MAC, text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID, text) && version_of_uuid(text) == Some('3'),
        "uuid4" => matches(&UUID, text) && version_of_uuid(text) == Some('4'),
        "uuid5" => matches(&UUID, text) && version_of_uuid(text) == Some('5'),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "ssn" => matches(&SSN, text),
        "creditcard" => is_credit_card(text),
        "k8s-short-name" => is_label(text),
        "k8s-long-name" => is_subdomain(text),
        _ => true,
    }
}

/// Whether `number` is in the range of the format called `name`.
pub fn number_fits(name: &str, number: &Number) -> bool {
    let within = |low: i128, high: i128| match number.as_i128() {
        Some(whole) => (low..=high).contains(&whole),
        // A float without fraction; beyond 2^53 it is not exact anyway.
        None => number.as_f64().is_some_and(|float| float >= low as f64 && float <= high as f64),
    };
    match name {
        "int32" => within(i32::MIN.into(), i32::MAX.into()),
        "int64" => within(i64::MIN.into(), i64::MAX.into()),
        "float" => number.as_f64().is_some_and(|float| float.abs() <= f64::from(f32::MAX)),
        _ => true,
    }
}

/// A DNS label as of RFC 1123: `my-name`.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63 && matches(&LABEL, text)
}

/// A DNS subdomain as of RFC 1123: `my-name.example.com`.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| matches(&LABEL, part))
}

macro_rules! patterns {
    ($($name:ident = $text:literal;)*) => {
        $(static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());)*

        #[cfg(test)]
        const ALL: &[&LazyLock<Option<Regex>>] = &[$(&$name),*];
    };
}

patterns! {
    URI = r"^[A-Za-z][A-Za-z0-9+.\-]*:[^\s]+$|^/[^\s]*$";
    HOSTNAME = r"^([a-zA-Z0-9_]([a-zA-Z0-9_\-]{0,61}[a-zA-Z0-9_])?)(\.[a-zA-Z0-9_]([a-zA-Z0-9_\-]{0,61}[a-zA-Z0-9_])?)*\.?$";
    EMAIL = r#"^[^\s@<>"]+@[A-Za-z0-9\-]+(\.[A-Za-z0-9\-]+)*$"#;
    MAC = r"^([0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}(-[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){2})$";
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\(\s*([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*(,\s*([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*){2}\)$";
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    LABEL = r"^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$";
}

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// RFC 3339: the offset is required, the letter between date and time too.
fn is_date_time(text: &str) -> bool {
    text.as_bytes().get(10).is_some_and(|byte| byte.eq_ignore_ascii_case(&b't'))
        && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    if prefix.is_empty()
        || !prefix.bytes().all(|byte| byte.is_ascii_digit())
        || (prefix.len() > 1 && prefix.starts_with('0'))
    {
        return false;
    }
    let Ok(bits) = prefix.parse::<u8>() else { return false };
    (address.parse::<Ipv4Addr>().is_ok() && bits <= 32) || (address.parse::<Ipv6Addr>().is_ok() && bits <= 128)
}

/// `1h30m`, `1.5s`, `-2ms`, `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 28] = [
        "ns", "nano", "us", "µs", "μs", "micro", "ms", "milli", "s", "sec", "second", "seconds", "m", "min", "minute",
        "minutes", "h", "hr", "hour", "hours", "d", "day", "days", "w", "wk", "week", "weeks", "nanos",
    ];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        if !UNITS.contains(&&rest[..letters]) {
            return false;
        }
        rest = rest[letters..].trim_start();
        any = true;
    }
    any
}

fn version_of_uuid(text: &str) -> Option<char> {
    text.chars().filter(|c| *c != '-').nth(12)
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .enumerate()
        .map(|(i, c)| if i == 9 && c == 'X' { 10 } else { c.to_digit(10).unwrap_or(100) })
        .collect();
    digits.len() == 10
        && digits.iter().all(|digit| *digit <= 10)
        && digits.iter().zip((1..=10).rev()).map(|(digit, weight)| digit * weight).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        digits.len() == 13
            && digits
                .iter()
                .zip([1, 3].iter().cycle())
                .map(|(digit, weight)| digit * weight)
                .sum::<u32>()
                .is_multiple_of(10)
    })
}

/// The Luhn sum over 13 to 19 digits.
fn is_credit_card(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| {
        let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
        let sum: u32 = digits.iter().rev().enumerate().map(|(i, d)| if i % 2 == 1 { doubled(*d) } else { *d }).sum();
        (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        assert!(ALL.iter().all(|pattern| pattern.is_some()));
    }

    #[test]
    fn formats_of_strings() {
        for (format, good, bad) in [
            (
                "date-time",
                &["2024-02-29T23:59:59Z", "2024-01-01T00:00:00.123+02:00"][..],
                &["2024-01-01", "x", "2024-13-01T00:00:00Z", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00"][..],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-1-1", "x"]),
            ("duration", &["1h30m", "0", "1.5s", "-2ms", "3 days"], &["", "1", "h", "1x", "1.2.3s"]),
            ("byte", &["", "YWJj", "YQ=="], &["YQ", "*"]),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8"]),
            ("uri", &["https://a.b/c", "/path", "urn:x"], &["", "no uri"]),
            ("hostname", &["a.b.c", "A-b"], &["-a", "a..b", "a b"]),
            ("email", &["a@b.c"], &["a@", "a b@c"]),
            ("mac", &["00:11:22:33:44:5f"], &["00:11:22:33:44"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567"]),
            ("uuid4", &["123e4567-e89b-42d3-a456-426614174000"], &["123e4567-e89b-12d3-a456-426614174000"]),
            ("isbn", &["0-306-40615-2", "978-3-16-148410-0"], &["0-306-40615-3", "x"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112", "0"]),
            ("hexcolor", &["#fff", "00ff00"], &["#ff"]),
            ("rgbcolor", &["rgb(0, 255,1)"], &["rgb(0,256,1)"]),
            ("k8s-short-name", &["a-b"], &["a.b", "A"]),
            ("k8s-long-name", &["a-b.c"], &["a_b", ""]),
            ("nobody-knows", &["", "x"], &[]),
        ] {
            for text in good {
                assert!(text_fits(format, text), "{format} {text:?}");
            }
            for text in bad {
                assert!(!text_fits(format, text), "{format} {text:?}");
            }
        }
    }

    #[test]
    fn formats_of_numbers() {
        assert!(number_fits("int32", &2147483647.into()) && !number_fits("int32", &2147483648_i64.into()));
        assert!(number_fits("int64", &i64::MAX.into()) && !number_fits("int64", &u64::MAX.into()));
        assert!(number_fits("double", &Number::from_f64(1e300).unwrap()));
        assert!(!number_fits("float", &Number::from_f64(1e300).unwrap()));
    }
}
