//! What is on the wire.

use serde::Deserialize;
use serde_json::{Value, json};

/// Longest line taken. The largest reply in use, hot-pluggable processors of a
/// 255-way machine, has about 80 KiB.
pub(super) const LONGEST: usize = 1 << 20;

/// One line from QEMU.
#[derive(Debug)]
pub(super) enum Message {
    /// The first line.
    Greeting,
    /// The reply to a command.
    Reply { id: u64, result: Result<Value, Refusal> },
    /// Something that happened.
    Event(Event),
}

/// Something that happened to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest has let go of a device; with its identifier if it has one.
    DeviceDeleted(Option<String>),
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The guest asked to be switched off or restarted.
    Shutdown,
    /// A state is being saved or loaded.
    Migration(Transfer),
    /// Guest memory was added or could not be taken away.
    Other(String),
}

/// How far saving or loading a state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// Done.
    Completed,
    /// Given up.
    Failed,
    /// On its way.
    #[serde(other)]
    Busy,
}

/// State of the machine as `query-status` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Executing.
    Running,
    /// Stopped by us.
    Paused,
    /// Not started yet.
    Prelaunch,
    /// Waiting for a saved state.
    Inmigrate,
    /// After the guest's kernel panicked.
    GuestPanicked,
    /// Switched off.
    Shutdown,
    /// Any other state.
    #[serde(other)]
    Other,
}

/// A command QEMU refused.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub class: String,
    pub desc: String,
}

/// Any line; which fields are there tells what it is.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    id: Option<u64>,
    #[serde(rename = "return")]
    success: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    data: Option<Value>,
}

/// The line for a command, with its end.
pub(super) fn command(id: u64, name: &str, arguments: &Value) -> Vec<u8> {
    let mut line = json!({ "execute": name, "id": id });
    if !arguments.is_null() {
        line["arguments"] = arguments.clone();
    }
    let mut line = line.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Understands a line, or tells why it makes no sense.
pub(super) fn parse(line: &[u8]) -> Result<Message, serde_json::Error> {
    let line: Line = serde_json::from_slice(line)?;
    match line {
        Line { greeting: Some(_), .. } => Ok(Message::Greeting),
        Line { event: Some(name), data, .. } => Ok(Message::Event(event(name, data.unwrap_or_default()))),
        Line { id: Some(id), success: Some(value), .. } => Ok(Message::Reply { id, result: Ok(value) }),
        Line { id: Some(id), error: Some(refusal), .. } => Ok(Message::Reply { id, result: Err(refusal) }),
        _ => Err(serde::de::Error::custom("neither greeting, reply nor event")),
    }
}

fn event(name: String, data: Value) -> Event {
    match name.as_str() {
        "DEVICE_DELETED" => Event::DeviceDeleted(data["device"].as_str().map(str::to_owned)),
        "GUEST_PANICKED" => Event::GuestPanicked,
        "SHUTDOWN" => Event::Shutdown,
        "MIGRATION" => Event::Migration(Transfer::deserialize(&data["status"]).unwrap_or(Transfer::Busy)),
        _ => Event::Other(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_are_what_their_fields_say() {
        let rows: &[(&str, &str)] = &[
            (r#"{"QMP":{"version":{},"capabilities":[]}}"#, "Greeting"),
            (r#"{"return":{},"id":7}"#, "Reply { id: 7, result: Ok(Object {}) }"),
            (r#"{"event":"SHUTDOWN","data":{"guest":true},"timestamp":{}}"#, "Event(Shutdown)"),
            (r#"{"event":"DEVICE_DELETED","data":{"path":"/x"}}"#, "Event(DeviceDeleted(None))"),
            (r#"{"event":"MIGRATION","data":{"status":"completed"}}"#, "Event(Migration(Completed))"),
            (r#"{"event":"MIGRATION","data":{"status":"setup"}}"#, "Event(Migration(Busy))"),
            (r#"{"event":"MIGRATION"}"#, "Event(Migration(Busy))"),
            (r#"{"event":"RESUME"}"#, "Event(Other(\"RESUME\"))"),
        ];
        for (line, want) in rows {
            assert_eq!(format!("{:?}", parse(line.as_bytes()).unwrap()), *want, "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["", "{}", "[]", "{\"return\":{}}", "{\"id\":1}", "{\"id\":-1,\"return\":{}}", "\u{0}", "{\"id\":1"]
        {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    /// A guest may have taken its emulator over. `cargo bolero test` runs this under a coverage-guided engine.
    #[test]
    fn any_line_is_understood_or_refused() {
        let seeds = [
            r#"{"QMP":{"version":{},"capabilities":[]}}"#,
            r#"{"return":[{"a":{"b":1}}],"id":7,"error":null}"#,
            r#"{"id":1,"error":{"class":"GenericError","desc":"text"}}"#,
            r#"{"event":"DEVICE_DELETED","data":{"device":"x"},"timestamp":{}}"#,
            r#"{"event":"MIGRATION","data":{"status":"completed"}}"#,
        ];
        let input = bolero::generator::produce::<(usize, Vec<(u8, u8)>, Vec<u8>)>();
        bolero::check!().with_test_time(Duration::from_secs(2)).with_generator(input).for_each(
            |(seed, edits, noise)| {
                let mut line = seeds[seed % seeds.len()].as_bytes().to_vec();
                for (at, value) in edits {
                    let place = usize::from(*at) % line.len();
                    line[place] = *value;
                }
                for line in [&line, noise] {
                    if let Ok(Message::Event(Event::Other(name))) = parse(line) {
                        // Escapes are longer than what they stand for.
                        assert!(name.len() <= line.len());
                    }
                }
            },
        );
    }
}
