//! From text to tokens.

use std::sync::Arc;

use super::value::Value;
use super::{MAX_LENGTH, Problem};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name, keywords included.
    Name(String),
    /// A field name in backquotes.
    QuotedName(String),
    Literal(Value),
    /// Digits of a whole number: whether it fits depends on a minus before it.
    Whole(u64),
    Symbol(&'static str),
    End,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")", "[", "]",
    "{", "}",
];

/// The tokens of `text` with their places in characters, [`Token::End`] last.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Problem> {
    let mut lexer = Lexer { chars: text.chars().take(MAX_LENGTH + 1).collect(), at: 0 };
    if lexer.chars.len() > MAX_LENGTH {
        return Err(Problem::new(0, format!("expression is longer than {MAX_LENGTH} characters")));
    }
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c))
    }

    fn problem(&self, text: impl Into<String>) -> Problem {
        Problem::new(self.at, text)
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                Some(' ' | '\t' | '\n' | '\r' | '\x0c') => self.at += 1,
                Some('/') if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        if let Some((raw, bytes, quote)) = self.string_prefix() {
            self.at = quote;
            return if bytes { self.bytes(raw) } else { self.string(raw) };
        }
        let number = first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit()));
        if number {
            return self.number();
        }
        if first == '_' || first.is_ascii_alphabetic() {
            return Ok(Token::Name(self.take_while(|c| c == '_' || c.is_ascii_alphanumeric())));
        }
        if first == '`' {
            self.at += 1;
            let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
            if name.is_empty() || self.peek(0) != Some('`') {
                return Err(self.problem("Syntax error: field name in backquotes expected"));
            }
            self.at += 1;
            return Ok(Token::QuotedName(name));
        }
        match SYMBOLS.into_iter().find(|symbol| self.starts_with(symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err(self.problem(format!("Syntax error: token recognition error at: '{first}'"))),
        }
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&fits) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// Whether a string begins here: raw, bytes, and the place of its quote.
    fn string_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes) = (false, false);
        for ahead in 0..3 {
            match self.peek(ahead)? {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                '\'' | '"' => return Some((raw, bytes, self.at + ahead)),
                _ => return None,
            }
        }
        None
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            return self.whole(start, u64::from_str_radix(&digits, 16).ok());
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut float = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            float = true;
            self.at += 1;
            text.push('.');
            text.push_str(&self.take_while(|c| c.is_ascii_digit()));
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                text.extend(&self.chars[self.at..=self.at + sign]);
                self.at += 1 + sign;
                text.push_str(&self.take_while(|c| c.is_ascii_digit()));
            }
        }
        if !float {
            return self.whole(start, text.parse().ok());
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token::Literal(Value::Float(number))),
            _ => Err(Problem::new(start, "invalid double literal")),
        }
    }

    fn whole(&mut self, start: usize, number: Option<u64>) -> Result<Token, Problem> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        self.at += usize::from(unsigned);
        match number {
            Some(number) if unsigned => Ok(Token::Literal(Value::UInt(number))),
            Some(number) => Ok(Token::Whole(number)),
            None => Err(Problem::new(start, if unsigned { "invalid uint literal" } else { "invalid int literal" })),
        }
    }

    /// Opening quote, single or triple, and whether lines may break inside.
    fn quote(&mut self) -> (String, bool) {
        let quote = self.peek(0).unwrap_or('"').to_string();
        let triple = quote.repeat(3);
        let (quote, multiline) = if self.starts_with(&triple) { (triple, true) } else { (quote, false) };
        self.at += quote.len();
        (quote, multiline)
    }

    /// Calls `take` for every character or escape until the closing quote.
    fn quoted(&mut self, raw: bool, mut take: impl FnMut(Piece)) -> Result<(), Problem> {
        let start = self.at;
        let (quote, multiline) = self.quote();
        loop {
            if self.starts_with(&quote) {
                self.at += quote.len();
                return Ok(());
            }
            match self.peek(0) {
                None => return Err(Problem::new(start, "Syntax error: unterminated string")),
                Some('\n' | '\r') if !multiline => {
                    return Err(Problem::new(start, "Syntax error: line break in string"));
                }
                Some('\\') if !raw => {
                    let piece = self.escape()?;
                    take(piece);
                }
                Some(c) => {
                    self.at += 1;
                    take(Piece::Char(c));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<Piece, Problem> {
        let bad = Problem::new(self.at, "Syntax error: unknown escape in string");
        let Some(kind) = self.peek(1) else { return Err(bad) };
        let simple = match kind {
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            '\\' | '\'' | '"' | '`' | '?' => Some(kind),
            _ => None,
        };
        if let Some(c) = simple {
            self.at += 2;
            return Ok(Piece::Char(c));
        }
        let (skip, digits, radix) = match kind {
            'x' | 'X' => (2, 2, 16),
            'u' => (2, 4, 16),
            'U' => (2, 8, 16),
            '0'..='3' => (1, 3, 8),
            _ => return Err(bad),
        };
        let from = self.at + skip;
        let code: String = self.chars.iter().skip(from).take(digits).collect();
        let Some(code) =
            Some(code).filter(|code| code.chars().count() == digits && code.chars().all(|c| c.is_digit(radix)))
        else {
            return Err(bad);
        };
        let Ok(code) = u32::from_str_radix(&code, radix) else { return Err(bad) };
        self.at = from + digits;
        if digits < 4 {
            return u8::try_from(code).map(Piece::Code).map_err(|_| bad);
        }
        char::from_u32(code).map(Piece::Char).ok_or(bad)
    }

    fn string(&mut self, raw: bool) -> Result<Token, Problem> {
        let mut text = String::new();
        self.quoted(raw, |piece| match piece {
            Piece::Char(c) => text.push(c),
            Piece::Code(code) => text.push(char::from(code)),
        })?;
        Ok(Token::Literal(Value::String(Arc::new(text))))
    }

    fn bytes(&mut self, raw: bool) -> Result<Token, Problem> {
        let mut bytes = Vec::new();
        self.quoted(raw, |piece| match piece {
            Piece::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Piece::Code(code) => bytes.push(code),
        })?;
        Ok(Token::Literal(Value::Bytes(Arc::new(bytes))))
    }
}

/// Part of a string: a character, or a code that is a character in strings and a byte in bytes.
enum Piece {
    Char(char),
    Code(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Option<Value> {
        match tokens(text).ok()?.into_iter().next()?.1 {
            Token::Literal(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn literals_are_read() {
        let text = |text: &str| Some(Value::String(Arc::new(text.to_owned())));
        let bytes = |bytes: &[u8]| Some(Value::Bytes(Arc::new(bytes.to_vec())));
        for (input, want) in [
            ("'a'", text("a")),
            (r#""a'b""#, text("a'b")),
            (r"'a\n\x41\101\u00e9\''", text("a\nAAé'")),
            (r"r'\d'", text(r"\d")),
            ("'''a\n'b'''", text("a\n'b")),
            (r"b'\xffa'", bytes(&[255, b'a'])),
            ("b'é'", bytes("é".as_bytes())),
            ("1.5", Some(Value::Float(1.5))),
            (".5e1", Some(Value::Float(5.0))),
            ("1e-1", Some(Value::Float(0.1))),
            ("3u", Some(Value::UInt(3))),
        ] {
            assert_eq!(literal(input), want, "{input}");
        }
        for input in
            ["'a", "'a\nb'", r"'\q'", r"'\x4'", r"'\ud800'", "1e999", "99999999999999999999", "`", "`a", "#", "0x"]
        {
            assert!(tokens(input).is_err(), "{input}");
        }
    }

    #[test]
    fn tokens_know_their_place() {
        let seen = tokens("a // c\n<= 0x1F").ok().map(|tokens| tokens.into_iter().skip(1).collect::<Vec<_>>());
        assert_eq!(seen, Some(vec![(7, Token::Symbol("<=")), (10, Token::Whole(31)), (14, Token::End)]));
    }
}
