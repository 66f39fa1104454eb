//! What a stream URI names.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::net::unix::pipe;

use super::{IoError, copy::Sink};

/// The far end of an output stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Output is thrown away.
    Nowhere,
    /// A named pipe.
    Pipe(PathBuf),
    /// A file that is appended to.
    File(PathBuf),
    /// A program that gets both streams.
    Logger { program: PathBuf, arguments: Vec<String> },
}

impl Target {
    /// Understands a path or URI.
    pub(super) fn parse(uri: &str) -> Result<Self, IoError> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Ok(if uri.is_empty() { Self::Nowhere } else { Self::Pipe(uri.into()) });
        };
        match scheme {
            "fifo" => Ok(Self::Pipe(rest.into())),
            "file" => Ok(Self::File(rest.into())),
            "binary" => {
                let (program, query) = rest.split_once('?').unwrap_or((rest, ""));
                let arguments = query.split('&').filter(|pair| !pair.is_empty()).flat_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    [key, value].into_iter().filter(|word| !word.is_empty()).map(decode)
                });
                Ok(Self::Logger { program: decode(program).into(), arguments: arguments.collect() })
            }
            _ => Err(IoError::Scheme(uri.to_owned())),
        }
    }

    /// Opens a pipe or file. Loggers are started, not opened.
    pub(super) fn open(self) -> Result<Sink, IoError> {
        match self {
            Self::Nowhere | Self::Logger { .. } => Ok(Sink::Nowhere),
            // Open for reading as well: opening does not wait for the engine, and
            // an engine that restarts breaks nothing.
            Self::Pipe(path) => pipe::OpenOptions::new()
                .read_write(true)
                .open_sender(&path)
                .map(Sink::Pipe)
                .map_err(|source| failed(&path, source)),
            Self::File(path) => append(&path).map(Sink::File).map_err(|source| failed(&path, source)),
        }
    }
}

/// The pipe a process reads. Opened without waiting: end of file shows only once
/// a writer has been there and left.
pub(super) fn open_input(uri: &str) -> Result<pipe::Receiver, IoError> {
    let path = Path::new(uri.strip_prefix("fifo://").unwrap_or(uri));
    pipe::OpenOptions::new().open_receiver(path).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> IoError {
    IoError::Open { uri: path.display().to_string(), source }
}

fn append(path: &Path) -> io::Result<tokio::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::File::options().append(true).create(true).open(path)?.into())
}

/// Percent-decoding; what is not an escape stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|pair| hex::decode(pair).ok());
        match escape {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_understood() {
        let logger = |program: &str, arguments: &[&str]| Target::Logger {
            program: program.into(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        for (uri, want) in [
            ("", Target::Nowhere),
            ("/run/x/stdout", Target::Pipe("/run/x/stdout".into())),
            ("fifo:///run/x", Target::Pipe("/run/x".into())),
            ("file:///var/log/x", Target::File("/var/log/x".into())),
            ("binary:///bin/logger", logger("/bin/logger", &[])),
            ("binary:///bin/l%20r?--tag=a+b&-v&x=%41%", logger("/bin/l r", &["--tag", "a b", "-v", "x", "A%"])),
        ] {
            assert_eq!(Target::parse(uri).unwrap(), want, "{uri}");
        }
        assert!(Target::parse("http://x").is_err());
    }
}
