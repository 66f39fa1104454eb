//! From tokens to a tree, by precedence. Each level of nesting is counted, so the stack is bounded whatever the text.

use super::ast::{Ast, Element, Expr, Fold, FoldKind, Operator};
use super::lexer::{Token, tokens};
use super::value::Value;
use super::{MAX_NESTING, Problem};

/// Names that mean nothing yet and may not be used as variables.
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "in",
];

/// Reads one expression.
pub(crate) fn parse(text: &str) -> Result<Ast, Problem> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, nesting: 0 };
    let ast = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(ast),
        _ => Err(parser.unexpected("end of expression")),
    }
}

type Parsed<T = Ast> = Result<T, Problem>;

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    nesting: u32,
}

fn boxed(ast: Ast) -> Box<Ast> {
    Box::new(ast)
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(at, _)| *at)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Parsed<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> Problem {
        let found = match self.peek() {
            Token::Name(name) | Token::QuotedName(name) => format!("'{name}'"),
            Token::Literal(_) | Token::Whole(_) => "a literal".to_owned(),
            Token::Symbol(symbol) => format!("'{symbol}'"),
            Token::End => "the end".to_owned(),
        };
        Problem::new(self.at(), format!("Syntax error: {wanted} expected, not {found}"))
    }

    /// A node at `at`, unless it is too high a tree.
    fn node(&self, at: usize, expr: Expr) -> Parsed {
        let mut ast = Ast { at, depth: 0, expr };
        ast.depth = 1 + ast.children().iter().map(|child| child.depth).max().unwrap_or(0);
        if ast.depth > MAX_NESTING {
            return Err(Problem::new(at, format!("expression nests more than {MAX_NESTING} levels")));
        }
        Ok(ast)
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(Problem::new(self.at(), format!("expression nests more than {MAX_NESTING} levels")));
        }
        let ast = self.choice();
        self.nesting -= 1;
        ast
    }

    fn choice(&mut self) -> Parsed {
        let condition = self.or()?;
        let at = self.at();
        if !self.eat("?") {
            return Ok(condition);
        }
        let then = self.or()?;
        self.expect(":")?;
        let otherwise = self.expression()?;
        self.node(at, Expr::Choice(Box::new([condition, then, otherwise])))
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", Self::relation, Expr::And)
    }

    /// One term, or several joined by `symbol` into one node.
    fn chain(&mut self, symbol: &str, term: fn(&mut Self) -> Parsed, join: fn(Vec<Ast>) -> Expr) -> Parsed {
        let first = term(self)?;
        let at = self.at();
        if !self.is(symbol) {
            return Ok(first);
        }
        let mut terms = vec![first];
        while self.eat(symbol) {
            terms.push(term(self)?);
        }
        self.node(at, join(terms))
    }

    /// Operands joined by operators of one precedence, the left ones first.
    fn binary(&mut self, operand: fn(&mut Self) -> Parsed, operators: &[(&str, Operator)]) -> Parsed {
        let mut left = operand(self)?;
        loop {
            let at = self.at();
            let is = |symbol: &str| match self.peek() {
                Token::Symbol(found) => *found == symbol,
                Token::Name(name) => name == symbol,
                _ => false,
            };
            let Some((_, operator)) = operators.iter().find(|(symbol, _)| is(symbol)) else { return Ok(left) };
            self.next += 1;
            let right = operand(self)?;
            left = self.node(at, Expr::Binary(*operator, boxed(left), boxed(right)))?;
        }
    }

    fn relation(&mut self) -> Parsed {
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<", Operator::Less),
            ("<=", Operator::LessOrEqual),
            (">", Operator::Greater),
            (">=", Operator::GreaterOrEqual),
            ("in", Operator::In),
        ];
        self.binary(Self::sum, &operators)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(Self::product, &[("+", Operator::Add), ("-", Operator::Subtract)])
    }

    fn product(&mut self) -> Parsed {
        let operators = [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.binary(Self::unary, &operators)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let mut count = 0;
        for (symbol, wrap) in [("!", Expr::Not as fn(Box<Ast>) -> Expr), ("-", Expr::Negate)] {
            while self.eat(symbol) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            // The smallest whole number has no positive counterpart.
            if symbol == "-"
                && let Token::Whole(number) = *self.peek()
            {
                let value =
                    0_i64.checked_sub_unsigned(number).ok_or_else(|| Problem::new(at, "invalid int literal"))?;
                self.next += 1;
                let literal = self.node(at, Expr::Literal(Value::Int(value)))?;
                let member = self.member(literal)?;
                return if count % 2 == 1 { Ok(member) } else { self.node(at, wrap(boxed(member))) };
            }
            let operand = self.primary()?;
            let operand = self.member(operand)?;
            // An even number of them undoes itself, but the operand must still fit.
            let once = self.node(at, wrap(boxed(operand)))?;
            return if count % 2 == 1 { Ok(once) } else { self.node(at, wrap(boxed(once))) };
        }
        let operand = self.primary()?;
        self.member(operand)
    }

    /// Everything that may follow an operand: fields, calls, indices.
    fn member(&mut self, mut operand: Ast) -> Parsed {
        loop {
            let at = self.at();
            if self.eat(".") {
                let optional = self.eat("?");
                let quoted = matches!(self.peek(), Token::QuotedName(_));
                let field = self.field_name()?;
                operand = if self.is("(") && !optional && !quoted {
                    self.method(at, operand, field)?
                } else {
                    self.node(at, Expr::Select { operand: boxed(operand), field, optional })?
                };
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expression()?;
                self.expect("]")?;
                operand = self.node(at, Expr::Index { operand: boxed(operand), index: boxed(index), optional })?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn field_name(&mut self) -> Parsed<String> {
        match self.peek().clone() {
            Token::Name(name) | Token::QuotedName(name) => {
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("field name")),
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        match self.peek().clone() {
            Token::Literal(value) => self.literal(value),
            Token::Whole(number) => match i64::try_from(number) {
                Ok(number) => self.literal(Value::Int(number)),
                Err(_) => Err(Problem::new(at, "invalid int literal")),
            },
            Token::Name(name) => self.named(at, name),
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(at),
            Token::Symbol("{") => self.map(at),
            // A leading dot means the outermost scope; there is only one.
            Token::Symbol(".") => {
                self.next += 1;
                match self.peek().clone() {
                    Token::Name(name) => self.named(at, name),
                    _ => Err(self.unexpected("name")),
                }
            }
            _ => Err(self.unexpected("expression")),
        }
    }

    fn literal(&mut self, value: Value) -> Parsed {
        let at = self.at();
        self.next += 1;
        self.node(at, Expr::Literal(value))
    }

    fn named(&mut self, at: usize, name: String) -> Parsed {
        match name.as_str() {
            "true" => return self.literal(Value::Bool(true)),
            "false" => return self.literal(Value::Bool(false)),
            "null" => return self.literal(Value::Null),
            _ if RESERVED.contains(&name.as_str()) => {
                return Err(Problem::new(at, format!("Syntax error: reserved identifier: {name}")));
            }
            _ => self.next += 1,
        }
        if self.is("{") {
            return Err(Problem::new(at, format!("undeclared reference to '{name}': messages cannot be constructed")));
        }
        if !self.is("(") {
            return self.node(at, Expr::Name(name));
        }
        let mut arguments = self.arguments()?;
        if name != "has" {
            return self.node(at, Expr::Call { target: None, function: name, arguments });
        }
        match (arguments.pop().map(|argument| argument.expr), arguments.is_empty()) {
            (Some(Expr::Select { operand, field, optional: false }), true) => {
                self.node(at, Expr::Has { operand, field })
            }
            _ => Err(Problem::new(at, "invalid argument to has() macro")),
        }
    }

    fn arguments(&mut self) -> Parsed<Vec<Ast>> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.is(")") {
            arguments.push(self.expression()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    /// `target.function(…)`: a macro if it has the shape of one, otherwise a call.
    fn method(&mut self, at: usize, target: Ast, function: String) -> Parsed {
        let mut arguments = self.arguments()?;
        let kind = match function.as_str() {
            "all" => Some(FoldKind::All),
            "exists" => Some(FoldKind::Exists),
            "exists_one" | "existsOne" => Some(FoldKind::ExistsOne),
            "map" => Some(FoldKind::Map),
            "filter" => Some(FoldKind::Filter),
            _ => None,
        };
        let bind = function == "bind" && matches!(&target.expr, Expr::Name(name) if name == "cel");
        let optional = matches!(function.as_str(), "optMap" | "optFlatMap");
        match (kind, arguments.len()) {
            (Some(kind), 2 | 3) => return self.fold(at, kind, target, arguments),
            (None, 3) if bind => {
                let (Some(body), Some(value)) = (arguments.pop(), arguments.pop()) else {
                    return Err(self.unexpected("arguments"));
                };
                let name = variable(arguments.pop())?;
                return self.node(at, Expr::Bind { name, value: boxed(value), body: boxed(body) });
            }
            (None, 2) if optional => {
                let Some(body) = arguments.pop() else { return Err(self.unexpected("arguments")) };
                let name = variable(arguments.pop())?;
                let flat = function == "optFlatMap";
                return self.node(at, Expr::OptionalMap { target: boxed(target), name, body: boxed(body), flat });
            }
            _ => {}
        }
        self.node(at, Expr::Call { target: Some(boxed(target)), function, arguments })
    }

    fn fold(&mut self, at: usize, kind: FoldKind, range: Ast, arguments: Vec<Ast>) -> Parsed {
        let mut arguments = arguments.into_iter();
        let first = variable(arguments.next())?;
        let (Some(middle), last) = (arguments.next(), arguments.next()) else {
            return Err(self.unexpected("arguments"));
        };
        let (second, filter, body) = match (kind, last) {
            (_, None) => (None, None, middle),
            (FoldKind::Map, Some(body)) => (None, Some(middle), body),
            (FoldKind::Filter, Some(_)) => return Err(Problem::new(at, "filter() takes a name and a condition")),
            (_, Some(body)) => (Some(variable(Some(middle))?), None, body),
        };
        self.node(at, Expr::Fold(Box::new(Fold { range, kind, names: (first, second), filter, body })))
    }

    fn list(&mut self, at: usize) -> Parsed {
        self.next += 1;
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.eat("?");
            items.push(Element { value: self.expression()?, optional });
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]")?;
        self.node(at, Expr::List(items))
    }

    fn map(&mut self, at: usize) -> Parsed {
        self.next += 1;
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.eat("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, Element { value: self.expression()?, optional }));
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}")?;
        self.node(at, Expr::Map(entries))
    }
}

/// The name a macro binds.
fn variable(argument: Option<Ast>) -> Parsed<String> {
    match argument {
        Some(Ast { expr: Expr::Name(name), .. }) => Ok(name),
        Some(other) => Err(Problem::new(other.at, "argument must be a simple name")),
        None => Err(Problem::new(0, "argument must be a simple name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(text).err().map_or_else(|| format!("{text} was accepted"), |problem| problem.text)
    }

    #[test]
    fn what_is_not_cel_is_refused() {
        for (text, want) in [
            ("", "expression expected, not the end"),
            ("a b", "end of expression expected, not 'b'"),
            ("a ==", "expression expected"),
            ("(a", "')' expected"),
            ("a.", "field name expected"),
            ("[1, 2", "']' expected"),
            ("{1 2}", "':' expected"),
            ("has(a)", "invalid argument to has()"),
            ("a.all(1, true)", "must be a simple name"),
            ("Foo{a: 1}", "messages cannot be constructed"),
            ("for", "reserved identifier"),
            ("9223372036854775808", "invalid int literal"),
        ] {
            assert!(problem(text).contains(want), "{text}: {}", problem(text));
        }
        for text in ["-9223372036854775808", "a.in", "[1,]", "{1: 2,}", "a.?b[?0].`c-d`", "!!a", "--1", ".a"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_length_is_not_nesting() {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "", "]"),
            ("f(", "", ")"),
            ("{1:", "1", "}"),
            ("1+", "1", ""),
            ("a.", "b", ""),
            ("a?b:", "c", ""),
            ("a[", "0", "]"),
        ] {
            let text = format!("{}{middle}{}", open.repeat(3000), close.repeat(3000));
            assert!(problem(&text).contains("nests more than"), "{open}: {}", problem(&text));
        }
        for text in ["!".repeat(9000) + "a", "-".repeat(9000) + "a", "a||".repeat(9000) + "a", "a,".repeat(9000)] {
            assert!(parse(&format!("[{text}]")).is_ok());
        }
        assert!(problem(&"a".repeat(40_000)).contains("longer than"));
    }
}
