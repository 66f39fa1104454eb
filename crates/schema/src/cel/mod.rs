//! The Common Expression Language, as Kubernetes uses it in schemas and webhook conditions.
//!
//! ```text
//! text ─► lexer ─► parser ─► ast ─► check (types from the schema) ─► Program ─► eval (values, cost budget)
//!                                                                                └─► functions of kube-cel
//! ```
//!
//! Language definition: <https://github.com/google/cel-spec>. The function libraries come from `kube-cel`; parsing and
//! evaluation are done here because expressions are written by strangers and run inside the API server: the evaluator
//! that library builds upon has no limits and panics on parts of the language.
//!
//! What bounds a hostile expression: its length ([`MAX_LENGTH`]), its nesting ([`MAX_NESTING`]), which also bounds the
//! stack, and the cost of evaluating it. Every step, every item looked at and every ten characters compared cost one
//! unit; an expression may spend [`EXPRESSION_BUDGET`], all rules of one object together [`OBJECT_BUDGET`].

mod access;
mod ast;
mod check;
mod eval;
mod fold;
mod functions;
mod lexer;
mod library;
mod native;
mod parser;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::sync::Arc;

use serde_json::Value as Json;

use ast::Ast;
pub(crate) use eval::Fault;
pub(crate) use types::Type;
pub(crate) use value::{Value, from_json, optional};

/// Characters an expression may have.
pub const MAX_LENGTH: usize = 32 * 1024;
/// Levels an expression may nest.
pub const MAX_NESTING: u32 = 100;
/// Cost units one expression may spend.
pub const EXPRESSION_BUDGET: u64 = 1_000_000;
/// Cost units all rules of one object may spend together.
pub const OBJECT_BUDGET: u64 = 10_000_000;

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERROR: <input>:{line}:{column}: {problem}")]
pub struct CompileError {
    /// What is wrong.
    pub problem: String,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl CompileError {
    /// `at` counts characters of `text`.
    fn new(text: &str, at: usize, problem: String) -> Self {
        let before: String = text.chars().take(at).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { problem, line, column }
    }
}

/// Something wrong at a character of the text, while it is still being read.
pub(crate) struct Problem {
    at: usize,
    text: String,
}

impl Problem {
    fn new(at: usize, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}

/// An expression that could not be evaluated to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// It cost too much.
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
    /// It failed on these values.
    #[error("{0}")]
    Failed(String),
}

/// A compiled and checked expression.
#[derive(Clone, Debug)]
pub struct Program {
    ast: Arc<Ast>,
    result: Outcome,
    uses_old_self: bool,
}

/// What is known about the type an expression has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Bool,
    Text,
    Unknown,
    Other,
}

impl Program {
    /// Compiles `text`, in which only the given variables exist.
    pub(crate) fn compile(text: &str, variables: &[(&str, Type<'_>)]) -> Result<Self, CompileError> {
        let fail = |problem: Problem| CompileError::new(text, problem.at, problem.text);
        let ast = parser::parse(text).map_err(fail)?;
        let result = match check::check(&ast, variables).map_err(fail)? {
            Type::Bool => Outcome::Bool,
            Type::Text => Outcome::Text,
            Type::Dyn => Outcome::Unknown,
            _ => Outcome::Other,
        };
        let uses_old_self = ast.mentions("oldSelf");
        Ok(Self { ast: Arc::new(ast), result, uses_old_self })
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.result
    }

    pub(crate) fn uses_old_self(&self) -> bool {
        self.uses_old_self
    }

    /// Evaluates with these variables, spending from `budget`.
    pub(crate) fn run(&self, variables: &[(&str, Value)], budget: &mut u64) -> Result<Value, Fault> {
        eval::run(&self.ast, variables, budget)
    }
}

/// An expression over JSON values of which nothing is known beforehand: conditions of webhooks.
#[derive(Clone, Debug)]
pub struct Expression {
    program: Program,
}

impl Expression {
    /// Compiles `text`, in which only `variables` exist: a reference to anything else is refused here.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let variables: Vec<(&str, Type<'_>)> = variables.iter().map(|name| (*name, Type::Dyn)).collect();
        Ok(Self { program: Program::compile(text, &variables)? })
    }

    /// Whether the result is, or at least may be, true or false.
    pub fn may_be_bool(&self) -> bool {
        matches!(self.program.result, Outcome::Bool | Outcome::Unknown)
    }

    /// The value of the expression; results without a JSON form (optionals, quantities) are errors.
    pub fn evaluate(&self, variables: &[(&str, &Json)]) -> Result<Json, EvaluateError> {
        let result = self.value(variables)?;
        value::to_json(&result).ok_or_else(|| EvaluateError::Failed("the result has no JSON form".to_owned()))
    }

    /// The value of an expression that must be true or false.
    pub fn evaluate_bool(&self, variables: &[(&str, &Json)]) -> Result<bool, EvaluateError> {
        match self.value(variables)? {
            Value::Bool(result) => Ok(result),
            _ => Err(EvaluateError::Failed("the result is neither true nor false".to_owned())),
        }
    }

    fn value(&self, variables: &[(&str, &Json)]) -> Result<Value, EvaluateError> {
        let variables: Vec<_> = variables.iter().map(|(name, json)| (*name, value::untyped(json))).collect();
        let mut budget = EXPRESSION_BUDGET;
        self.program.run(&variables, &mut budget).map_err(|fault| match fault {
            Fault::Budget => EvaluateError::Budget,
            Fault::Failed(text) => EvaluateError::Failed(text),
        })
    }
}
