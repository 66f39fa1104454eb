//! The JSONPath of kubectl and CustomResourceDefinitions, as far as printer columns and scale paths use it.
//!
//! `.spec.replicas` · `.metadata.annotations['a.b/c']` · `.metadata.labels.a\.b` · `.status.list[0]`, `[-1]` ·
//! `.spec.ports[*].name` · `.status.conditions[?(@.type=="Ready")].status` with `==`, `!=`, `<`, `<=`, `>`, `>=`, or
//! without an operator: exists. Braces around the whole and a leading `$` are accepted. There is no `..`, no slice and
//! no union.

use std::cmp::Ordering;

use serde_json::Value;

/// A compiled path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    /// All items of a list, all values of an object.
    Every,
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// None: the left side exists.
    test: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A text that is not a path this crate understands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("JSONPath {path:?}: {problem} at character {at}")]
pub struct JsonPathError {
    /// The text.
    pub path: String,
    /// What is wrong.
    pub problem: &'static str,
    /// Where, counted in characters from 0.
    pub at: usize,
}

impl JsonPath {
    /// Characters a path may have.
    const MAX_LENGTH: usize = 4096;

    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let mut inner = text.trim();
        inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
        let mut reader = Reader { chars: inner.chars().collect(), at: 0 };
        let fail = |problem, at| JsonPathError { path: text.to_owned(), problem, at };
        if reader.chars.len() > Self::MAX_LENGTH {
            return Err(fail("too long", Self::MAX_LENGTH));
        }
        if reader.peek() == Some('$') {
            reader.at += 1;
        }
        let steps = reader.steps(false).map_err(|problem| fail(problem, reader.at))?;
        if reader.at < reader.chars.len() {
            return Err(fail("unexpected character", reader.at));
        }
        Ok(Self { steps })
    }

    /// Everything the path leads to, in order; nothing if it leads nowhere.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }

    /// The first thing the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }

    /// The names of a path that consists of nothing else, such as `.spec.replicas`.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let names = self.steps.iter().map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(items)) => {
                let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
                let at = if *index < 0 { items.len().checked_sub(from_end) } else { Some(from_end) };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Step::Every, Value::Array(items)) => items.iter().collect(),
            (Step::Every, Value::Object(fields)) => fields.values().collect(),
            (Step::Filter(filter), Value::Array(items)) => items.iter().filter(|item| filter.accepts(item)).collect(),
            _ => Vec::new(),
        }
    }
}

impl Filter {
    fn accepts(&self, item: &Value) -> bool {
        let Some(left) = self.left.resolve(item) else { return false };
        let Some((comparison, right)) = &self.test else { return true };
        let Some(right) = right.resolve(item) else { return false };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match comparison {
            Comparison::Equal => left == right || order == Some(Ordering::Equal),
            Comparison::NotEqual => left != right && order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

impl Operand {
    fn resolve<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Operand::Path(path) => path.first(item),
            Operand::Literal(value) => Some(value),
        }
    }
}

type Parsed<T> = Result<T, &'static str>;

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(' ') {
            self.at += 1;
        }
    }

    /// Takes `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let fits = text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        if fits {
            self.at += text.chars().count();
        }
        fits
    }

    fn expect(&mut self, text: &str, problem: &'static str) -> Parsed<()> {
        if self.eat(text) { Ok(()) } else { Err(problem) }
    }

    /// Steps up to the end, or inside a filter up to what cannot belong to a path.
    fn steps(&mut self, in_filter: bool) -> Parsed<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('.') => {
                    self.at += 1;
                    if self.peek() == Some('.') {
                        return Err("recursive descent is not supported");
                    }
                    // A lone dot is the object itself; `.['a']` is the same as `['a']`.
                    match self.name()? {
                        Some(step) => steps.push(step),
                        None if matches!(self.peek(), None | Some('[')) => {}
                        None => return Err("field name expected"),
                    }
                }
                Some('[') => steps.push(self.bracket(in_filter)?),
                // `spec.replicas` without the leading dot.
                Some(_) if steps.is_empty() && !in_filter => match self.name()? {
                    Some(step) => steps.push(step),
                    None => return Err("field name expected"),
                },
                _ => return Ok(steps),
            }
        }
    }

    fn name(&mut self) -> Parsed<Option<Step>> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    name.push(self.peek().ok_or("character expected after the backslash")?);
                }
                '.' | '[' | ']' | ' ' | ')' | '(' | '=' | '!' | '<' | '>' | '{' | '}' | '\'' | '"' | ',' => break,
                other => name.push(other),
            }
            self.at += 1;
        }
        Ok(match name.as_str() {
            "" => None,
            "*" => Some(Step::Every),
            _ => Some(Step::Field(name)),
        })
    }

    fn bracket(&mut self, in_filter: bool) -> Parsed<Step> {
        self.at += 1;
        self.skip_space();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Step::Every
            }
            Some('\'' | '"') => Step::Field(self.quoted()?),
            Some('?') if in_filter => return Err("filters do not nest"),
            Some('?') => Step::Filter(Box::new(self.filter()?)),
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|c| c == '-' || c.is_ascii_digit()) {
                    self.at += 1;
                }
                let digits: String = self.chars[start..self.at].iter().collect();
                Step::Index(digits.parse().map_err(|_| "index, quoted name, * or filter expected")?)
            }
        };
        self.skip_space();
        self.expect("]", "] expected")?;
        Ok(step)
    }

    fn quoted(&mut self) -> Parsed<String> {
        let quote = self.peek();
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err("unterminated string"),
                Some('\\') => {
                    self.at += 1;
                    text.push(self.peek().ok_or("unterminated string")?);
                }
                c if c == quote => break,
                Some(other) => text.push(other),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(text)
    }

    fn filter(&mut self) -> Parsed<Filter> {
        self.expect("?(", "( expected")?;
        let left = self.operand()?;
        let comparison = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ]
        .into_iter()
        .find(|(text, _)| self.eat(text));
        let test = match comparison {
            Some((_, comparison)) => Some((comparison, self.operand()?)),
            None => None,
        };
        self.expect(")", "comparison or ) expected")?;
        Ok(Filter { left, test })
    }

    fn operand(&mut self) -> Parsed<Operand> {
        self.skip_space();
        let operand = match self.peek() {
            Some('@') => {
                self.at += 1;
                Operand::Path(JsonPath { steps: self.steps(true)? })
            }
            Some('\'' | '"') => Operand::Literal(Value::from(self.quoted()?)),
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')) {
                    self.at += 1;
                }
                let word: String = self.chars[start..self.at].iter().collect();
                Operand::Literal(serde_json::from_str(&word).map_err(|_| "path, string, number or boolean expected")?)
            }
        };
        self.skip_space();
        Ok(operand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let value = json!({
            "spec": {"replicas": 3, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]},
            "metadata": {"labels": {"a.b/c": "x", "d": "y"}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Old", "status": "False"}]},
        });
        for (path, want) in [
            (".spec.replicas", vec![json!(3)]),
            ("{.spec.replicas}", vec![json!(3)]),
            ("$.spec.replicas", vec![json!(3)]),
            ("spec.replicas", vec![json!(3)]),
            (".metadata.labels['a.b/c']", vec![json!("x")]),
            (".metadata.labels.['d']", vec![json!("y")]),
            (r".metadata.labels.a\.b/c", vec![json!("x")]),
            (".spec.ports[1].name", vec![json!("b")]),
            (".spec.ports[-1].name", vec![json!("b")]),
            (".spec.ports[-3].name", vec![]),
            (".spec.ports[9].name", vec![]),
            (".spec.ports[*].port", vec![json!(80), json!(443)]),
            (".metadata.labels.*", vec![json!("x"), json!("y")]),
            (r#".status.conditions[?(@.type=="Ready")].status"#, vec![json!("True")]),
            (".status.conditions[?(@.type == 'Ready')].status", vec![json!("True")]),
            (".status.conditions[?(@.type!='Ready')].status", vec![json!("False")]),
            (".status.conditions[?(@.n)].type", vec![json!("Ready")]),
            (".spec.ports[?(@.port>80)].name", vec![json!("b")]),
            (".spec.ports[?(@.port<=443)].name", vec![json!("a"), json!("b")]),
            (".spec.ports[?(80==@.port)].name", vec![json!("a")]),
            (".spec.none.deeper", vec![]),
            (".", vec![value.clone()]),
        ] {
            let found: Vec<Value> = JsonPath::parse(path).unwrap().find(&value).into_iter().cloned().collect();
            assert_eq!(found, want, "{path}");
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for (path, problem) in [
            ("..a", "recursive descent"),
            (".a[", "index, quoted"),
            (".a[1", "] expected"),
            (".a['b]", "unterminated"),
            (".a[?(@.b==)]", "path, string"),
            (".a[?(@.b=='c']", "comparison or )"),
            (".a[?(@.b[?(@.c)])]", "do not nest"),
            (".a[0:2]", "] expected"),
            (".a b", "unexpected character"),
            (r".a\", "after the backslash"),
        ] {
            match JsonPath::parse(path) {
                Err(error) => assert!(error.to_string().contains(problem), "{path}: {error}"),
                Ok(parsed) => panic!("{path}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn simple_paths_give_their_names() {
        assert_eq!(JsonPath::parse(".spec.replicas").unwrap().fields(), Some(vec!["spec", "replicas"]));
        assert_eq!(JsonPath::parse(".spec.a[0]").unwrap().fields(), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in r#"[.\[\]?(@)=!<>'"\\ab0-9* {}$é-]{0,24}"#) {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [{"b": 1}, {"a": "b"}], "b": {"a": [0]}}));
            }
        }
    }
}
