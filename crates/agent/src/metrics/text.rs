//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;

/// Families in the order they were begun.
#[derive(Debug, Default)]
pub(super) struct Families(String);

/// A family samples are added to.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl Families {
    pub(super) fn gauge<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.begin(name, help, "gauge")
    }

    pub(super) fn counter<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.begin(name, help, "counter")
    }

    fn begin<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Family<'a> {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: &mut self.0, name }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample with these labels.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.out.push_str(self.name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.out.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
        self
    }

    /// Adds a sample labelled with one item.
    pub(super) fn item(&mut self, item: &str, value: f64) -> &mut Self {
        self.add(&[("item", item)], value)
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_follows_the_format() {
        let mut families = Families::default();
        families.gauge("a", "An a").add(&[], 1.5).add(&[("x", "q\"\\\n"), ("item", "i")], 12_345_678_901.0);
        families.counter("b", "A b").item("n", 0.0);
        let want = "# HELP a An a\n# TYPE a gauge\na 1.5\na{x=\"q\\\"\\\\\\n\",item=\"i\"} 12345678901\n\
                    # HELP b A b\n# TYPE b counter\nb{item=\"n\"} 0\n";
        assert_eq!(families.into_text(), want);
    }
}
