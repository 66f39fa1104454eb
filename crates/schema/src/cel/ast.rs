//! Expressions as trees. Macros are nodes of their own, not calls: they bind names.

use super::value::Value;

/// A node with its place in the text, in characters, and the levels below it.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub(crate) at: usize,
    pub(crate) depth: u32,
    pub(crate) expr: Expr,
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Literal(Value),
    Name(String),
    /// `operand.field`, or `operand.?field`.
    Select {
        operand: Box<Ast>,
        field: String,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Ast>,
        field: String,
    },
    /// `operand[index]`, or `operand[?index]`.
    Index {
        operand: Box<Ast>,
        index: Box<Ast>,
        optional: bool,
    },
    List(Vec<Element>),
    Map(Vec<(Ast, Element)>),
    Not(Box<Ast>),
    Negate(Box<Ast>),
    /// `a && b && …`
    And(Vec<Ast>),
    /// `a || b || …`
    Or(Vec<Ast>),
    Binary(Operator, Box<Ast>, Box<Ast>),
    /// `condition ? then : otherwise`
    Choice(Box<[Ast; 3]>),
    Call {
        target: Option<Box<Ast>>,
        function: String,
        arguments: Vec<Ast>,
    },
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`
    Bind {
        name: String,
        value: Box<Ast>,
        body: Box<Ast>,
    },
    /// `target.optMap(name, body)`; flat if `body` is an optional itself.
    OptionalMap {
        target: Box<Ast>,
        name: String,
        body: Box<Ast>,
        flat: bool,
    },
}

/// An item of a list or the value of a map entry; `?item` is left out if it is an empty optional.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) value: Ast,
    pub(crate) optional: bool,
}

/// A macro that goes over the items of a list or the entries of a map.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) range: Ast,
    pub(crate) kind: FoldKind,
    /// The item; for a map its key. With a second name: index or key, and item or value.
    pub(crate) names: (String, Option<String>),
    /// For `map(x, filter, body)`.
    pub(crate) filter: Option<Ast>,
    pub(crate) body: Ast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoldKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Operator::Equal => "_==_",
            Operator::NotEqual => "_!=_",
            Operator::Less => "_<_",
            Operator::LessOrEqual => "_<=_",
            Operator::Greater => "_>_",
            Operator::GreaterOrEqual => "_>=_",
            Operator::In => "@in",
            Operator::Add => "_+_",
            Operator::Subtract => "_-_",
            Operator::Multiply => "_*_",
            Operator::Divide => "_/_",
            Operator::Remainder => "_%_",
        }
    }
}

impl Ast {
    /// The nodes directly below.
    pub(crate) fn children(&self) -> Vec<&Ast> {
        match &self.expr {
            Expr::Literal(_) | Expr::Name(_) => Vec::new(),
            Expr::Select { operand: only, .. } | Expr::Has { operand: only, .. } => vec![only],
            Expr::Not(only) | Expr::Negate(only) => vec![only],
            Expr::Index { operand: a, index: b, .. } | Expr::Binary(_, a, b) => vec![a, b],
            Expr::List(items) => items.iter().map(|item| &item.value).collect(),
            Expr::Map(entries) => entries.iter().flat_map(|(key, element)| [key, &element.value]).collect(),
            Expr::And(terms) | Expr::Or(terms) => terms.iter().collect(),
            Expr::Choice(parts) => parts.iter().collect(),
            Expr::Call { target, arguments, .. } => target.as_deref().into_iter().chain(arguments).collect(),
            Expr::Fold(fold) => [&fold.range].into_iter().chain(&fold.filter).chain([&fold.body]).collect(),
            Expr::Bind { value: a, body: b, .. } | Expr::OptionalMap { target: a, body: b, .. } => vec![a, b],
        }
    }

    /// Whether the variable `name` occurs anywhere.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        matches!(&self.expr, Expr::Name(found) if found == name)
            || self.children().iter().any(|child| child.mentions(name))
    }
}
