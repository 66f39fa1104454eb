//! The Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write};

/// A document under construction. Families come one after the other; samples
/// belong to the family begun last.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family of `kind` (`gauge`, `counter`, `histogram`).
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample. Label values are escaped.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// A family with a single unlabelled sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Adds text that is already in the format.
    pub fn append(&mut self, text: &str) {
        self.0.push_str(text);
        if !text.is_empty() && !text.ends_with('\n') {
            self.0.push('\n');
        }
    }

    /// The document.
    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_lines_complete() {
        let mut text = Text::default();
        text.family("a", "gauge", "An A.");
        text.sample("a", &[("x", "1\"\\\n"), ("y", "z")], 1.5);
        text.single("b", "counter", "A B.", 2);
        text.append("c 3");
        assert_eq!(
            text.finish(),
            "# HELP a An A.\n# TYPE a gauge\na{x=\"1\\\"\\\\\\n\",y=\"z\"} 1.5\n# HELP b A B.\n# TYPE b counter\nb 2\nc 3\n"
        );
    }
}
