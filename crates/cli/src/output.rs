//! Standard output for people and scripts.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use serde::Serialize;

use crate::Failure;

/// Prints one line. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// Any other error of standard output, for instance a full disk.
pub fn line(text: impl Display) -> Result<(), Failure> {
    write(format_args!("{text}\n"))
}

/// Prints `value` as JSON.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(io::Error::from)?)
}

fn write(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints rows with aligned columns; the last column is never padded.
///
/// # Errors
/// As [`line`].
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    line(format_table(header, rows).trim_end())
}

fn format_table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let mut text = String::new();
    for row in all() {
        for (column, cell) in row.iter().enumerate() {
            let width = all().map(|row| row[column].chars().count()).max().unwrap_or(0);
            if column + 1 == N {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:width$}  "));
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// A size the way people read it.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let rows = [["a".to_owned(), "one".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(format_table(["NAME", "V"], &rows), "NAME    V\na       one\nlonger\n");
    }

    #[test]
    fn sizes_are_readable() {
        for (size, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 40, "3072.0 GiB")]
        {
            assert_eq!(bytes(size), want);
        }
    }
}
