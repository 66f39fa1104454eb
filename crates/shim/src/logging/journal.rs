//! The journal's native protocol (systemd "Native Journal Protocol"): one datagram
//! an entry, `NAME=value` lines, values with line feeds length-prefixed.

use std::os::unix::net::UnixDatagram;

use super::{IDENTIFIER, Line};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Field telling which identifier an entry is logged under; virtiofsd's lines
/// keep their own.
const IDENTIFIER_FIELD: &str = "identifier";

/// A connection to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal of this host, when it has one.
    pub(super) fn open() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self(socket))
    }

    /// Sends `line`; drops it when the journal is busy.
    pub(super) fn send(&self, line: &Line, sandbox: &str) {
        let _ = self.0.send(&entry(line, sandbox));
    }
}

fn entry(line: &Line, sandbox: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let priority = match line.level {
        tracing::Level::ERROR => "3",
        tracing::Level::WARN => "4",
        tracing::Level::INFO => "6",
        _ => "7",
    };
    let identifier = line.fields.iter().find(|(name, _)| *name == IDENTIFIER_FIELD);
    put(&mut bytes, "MESSAGE", &line.message);
    put(&mut bytes, "PRIORITY", priority);
    put(&mut bytes, "SYSLOG_IDENTIFIER", identifier.map_or(IDENTIFIER, |(_, value)| value));
    put(&mut bytes, "SANDBOX", sandbox);
    for (name, value) in &line.fields {
        put(&mut bytes, &field_name(name), value);
    }
    bytes
}

/// Journal fields are upper case and know no dots.
fn field_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_journal_reads() {
        let fields = vec![("container.id", "c1".to_owned()), ("error", "a\nb".into())];
        let line = Line { level: tracing::Level::ERROR, message: "bad".into(), fields };
        let mut want =
            b"MESSAGE=bad\nPRIORITY=3\nSYSLOG_IDENTIFIER=kata\nSANDBOX=s1\nCONTAINER_ID=c1\nERROR\n".to_vec();
        want.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        want.extend(b"a\nb\n");
        assert_eq!(entry(&line, "s1"), want);
    }
}
