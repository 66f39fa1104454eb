//! Lines as container engines write their own: `time="…" level=… msg="…" key=value`.

use std::fmt::Write;

use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime},
};

use super::{IDENTIFIER, Line};

/// `line` with a line feed at its end.
pub(super) fn render(line: &Line, sandbox: &str) -> String {
    let mut text = String::with_capacity(160);
    text.push_str("time=\"");
    // Fails only when the string does, and strings do not.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    let _ = write!(text, "\" level={} msg=", level(line.level));
    value(&mut text, &line.message);
    let _ = write!(text, " name={IDENTIFIER} sandbox={sandbox}");
    for (name, content) in &line.fields {
        text.push(' ');
        text.push_str(name);
        text.push('=');
        value(&mut text, content);
    }
    text.push('\n');
    text
}

fn level(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warning",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

/// Writes a value, quoted unless it is a plain word.
fn value(text: &mut String, content: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c);
    if !content.is_empty() && content.chars().all(plain) {
        text.push_str(content);
    } else {
        let _ = write!(text, "{content:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_stay_on_their_line() {
        let fields = vec![("plain", "a/b-c".to_owned()), ("odd", "x\n level=fatal".into()), ("empty", String::new())];
        let line = Line { level: tracing::Level::WARN, message: "it broke".into(), fields };
        let text = render(&line, "s1");
        let (_, rest) = text.split_once("Z\" ").unwrap();
        let want =
            "level=warning msg=\"it broke\" name=kata sandbox=s1 plain=a/b-c odd=\"x\\n level=fatal\" empty=\"\"\n";
        assert_eq!(rest, want);
    }
}
