//! Evaluating expressions, with a budget.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

use super::EXPRESSION_BUDGET;
use super::access;
use super::ast::{Ast, Element, Expr, Operator};
use super::functions;
use super::value::{Map, Value, as_key, as_optional, entry, map, optional, order, type_name};
use crate::model::Pattern;

/// Compiled size of an ordinary regular expression, in bytes.
const SMALL_PATTERN: usize = 64 << 10;
/// Cost of compiling a regular expression of at most that size.
const SMALL_PATTERN_COST: u64 = 500;
/// What compiling a larger one costs besides.
const LARGE_PATTERN_COST: u64 = 50_000;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The budget is spent. Nothing recovers from that.
    Budget,
    /// Something failed. `true || failed` is still true.
    Failed(String),
}

pub(crate) type Evaluated<T = Value> = Result<T, Fault>;

pub(crate) fn failed<T>(text: impl Into<String>) -> Evaluated<T> {
    Err(Fault::Failed(text.into()))
}

/// Evaluates `ast` with these variables. What it costs is taken from `budget`, at most [`EXPRESSION_BUDGET`] of it.
pub(crate) fn run(ast: &Ast, variables: &[(&str, Value)], budget: &mut u64) -> Evaluated {
    let allowed = (*budget).min(EXPRESSION_BUDGET);
    let scope = variables.iter().map(|(name, value)| (*name, value.clone())).collect();
    let mut run = Run { scope, left: allowed, patterns: HashMap::new() };
    let result = run.eval(ast);
    *budget -= allowed - run.left;
    result
}

/// One evaluation under way.
pub(crate) struct Run<'a> {
    scope: Vec<(&'a str, Value)>,
    left: u64,
    patterns: HashMap<String, Regex>,
}

impl<'a> Run<'a> {
    /// Spends `cost` units.
    pub(crate) fn charge(&mut self, cost: u64) -> Evaluated<()> {
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 { Err(Fault::Budget) } else { Ok(()) }
    }

    /// Spends what looking at all of `value` costs.
    pub(crate) fn charge_all(&mut self, value: &Value) -> Evaluated<()> {
        self.charge(1)?;
        match value {
            Value::String(text) => self.charge(text.len() as u64 / 10),
            Value::Bytes(bytes) => self.charge(bytes.len() as u64 / 10),
            Value::List(items) => items.iter().try_for_each(|item| self.charge_all(item)),
            Value::Map(map) => map.map.values().try_for_each(|value| self.charge_all(value)),
            _ => Ok(()),
        }
    }

    /// A compiled regular expression; compiled once for all iterations.
    pub(crate) fn pattern(&mut self, text: &str) -> Evaluated<Regex> {
        if let Some(regex) = self.patterns.get(text) {
            return Ok(regex.clone());
        }
        // Compiling takes time with the size of the result, and patterns may come from the object by the thousand.
        self.charge(SMALL_PATTERN_COST + text.len() as u64)?;
        let small = Pattern::within(text, SMALL_PATTERN);
        if matches!(small, Err(regex::Error::CompiledTooBig(_))) {
            self.charge(LARGE_PATTERN_COST)?;
        }
        match small.or_else(|_| Pattern::new(text)) {
            Ok(pattern) => {
                self.patterns.insert(text.to_owned(), pattern.regex.clone());
                Ok(pattern.regex)
            }
            Err(error) => failed(format!("invalid regular expression: {error}")),
        }
    }

    pub(super) fn eval(&mut self, ast: &'a Ast) -> Evaluated {
        self.charge(1)?;
        match &ast.expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Name(name) => Ok(self.name(name)),
            Expr::Select { operand, field, optional } => {
                let operand = self.eval(operand)?;
                access::select(&operand, field, *optional)
            }
            Expr::Has { operand, field } => {
                let operand = self.eval(operand)?;
                let operand = match as_optional(&operand) {
                    Some(None) => return Ok(Value::Bool(false)),
                    Some(Some(inner)) => inner,
                    None => &operand,
                };
                Ok(Value::Bool(access::field(operand, field)?.is_some()))
            }
            Expr::Index { operand, index, optional } => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                access::index(&operand, &index, *optional)
            }
            Expr::List(items) => self.list(items),
            Expr::Map(entries) => self.map(entries),
            Expr::Not(operand) => match self.eval(operand)? {
                Value::Bool(flag) => Ok(Value::Bool(!flag)),
                other => no_overload("!_", &[&other]),
            },
            Expr::Negate(operand) => match self.eval(operand)? {
                Value::Int(number) => {
                    number.checked_neg().map(Value::Int).map_or_else(|| failed("integer overflow"), Ok)
                }
                Value::Float(number) => Ok(Value::Float(-number)),
                Value::Duration(length) => Ok(Value::Duration(-length)),
                other => no_overload("-_", &[&other]),
            },
            Expr::And(terms) => self.logic(terms, false),
            Expr::Or(terms) => self.logic(terms, true),
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                self.binary(*operator, left, right)
            }
            Expr::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if self.truth(condition)? { then } else { otherwise };
                self.eval(chosen)
            }
            Expr::Call { target, function, arguments } => self.call(target.as_deref(), function, arguments),
            Expr::Fold(fold) => self.fold(fold),
            Expr::Bind { name, value, body } => {
                let value = self.eval(value)?;
                self.within([(name.as_str(), value)], |run| run.eval(body))
            }
            Expr::OptionalMap { target, name, body, flat } => {
                let target = self.eval(target)?;
                match as_optional(&target) {
                    None => no_overload("optMap", &[&target]),
                    Some(None) => Ok(target),
                    Some(Some(inner)) => {
                        let result = self.within([(name.as_str(), inner.clone())], |run| run.eval(body))?;
                        Ok(if *flat { result } else { optional(Some(result)) })
                    }
                }
            }
        }
    }

    /// Evaluates with more names in scope.
    pub(super) fn within<T>(
        &mut self,
        names: impl IntoIterator<Item = (&'a str, Value)>,
        evaluate: impl FnOnce(&mut Self) -> Evaluated<T>,
    ) -> Evaluated<T> {
        let before = self.scope.len();
        self.scope.extend(names);
        let result = evaluate(self);
        self.scope.truncate(before);
        result
    }

    /// A variable; otherwise the name is that of a type, as the check has seen to.
    fn name(&self, name: &str) -> Value {
        let variable = self.scope.iter().rev().find(|(known, _)| *known == name);
        variable.map_or_else(|| type_value(name), |(_, value)| value.clone())
    }

    pub(super) fn truth(&mut self, ast: &'a Ast) -> Evaluated<bool> {
        match self.eval(ast)? {
            Value::Bool(flag) => Ok(flag),
            other => failed(format!("no such overload: '{}' is not a bool", type_name(&other))),
        }
    }

    /// `&&` and `||`: a term that is `decisive` decides, whatever failed before or comes after.
    fn logic(&mut self, terms: &'a [Ast], decisive: bool) -> Evaluated {
        let mut fault = None;
        for term in terms {
            match self.truth(term) {
                Ok(flag) if flag == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(Fault::Budget) => return Err(Fault::Budget),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    /// An item, unless it is an empty optional that may be left out.
    fn element(&mut self, element: &'a Element) -> Evaluated<Option<Value>> {
        let value = self.eval(&element.value)?;
        if !element.optional {
            return Ok(Some(value));
        }
        match as_optional(&value) {
            Some(inner) => Ok(inner.cloned()),
            None => failed("no such overload: '?' before a value that is not optional"),
        }
    }

    fn list(&mut self, items: &'a [Element]) -> Evaluated {
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            list.extend(self.element(item)?);
        }
        Ok(Value::List(Arc::new(list)))
    }

    fn map(&mut self, entries: &'a [(Ast, Element)]) -> Evaluated {
        let mut out = HashMap::with_capacity(entries.len());
        for (key, element) in entries {
            let key = self.eval(key)?;
            let Some(key) = as_key(&key) else {
                return failed(format!("unsupported key type: {}", type_name(&key)));
            };
            if let Some(value) = self.element(element)?
                && out.insert(key, value).is_some()
            {
                return failed("repeated key in map");
            }
        }
        Ok(map(out))
    }

    fn binary(&mut self, operator: Operator, left: Value, right: Value) -> Evaluated {
        let compared = |fits: fn(Ordering) -> bool| match order(&left, &right) {
            Some(order) => Ok(Value::Bool(fits(order))),
            None => no_overload(operator.symbol(), &[&left, &right]),
        };
        let result = match operator {
            Operator::Equal => return self.equal(&left, &right).map(Value::Bool),
            Operator::NotEqual => return self.equal(&left, &right).map(|equal| Value::Bool(!equal)),
            Operator::Less => return compared(Ordering::is_lt),
            Operator::LessOrEqual => return compared(Ordering::is_le),
            Operator::Greater => return compared(Ordering::is_gt),
            Operator::GreaterOrEqual => return compared(Ordering::is_ge),
            Operator::In => return self.contains(&right, &left).map(Value::Bool),
            Operator::Add => return self.add(left, right),
            Operator::Subtract => left - right,
            Operator::Multiply => left * right,
            Operator::Divide => left / right,
            Operator::Remainder => left % right,
        };
        result.or_else(|error| failed(error.to_string().chars().take(200).collect::<String>()))
    }

    fn add(&mut self, left: Value, right: Value) -> Evaluated {
        match (&left, &right) {
            (Value::String(a), Value::String(b)) => self.charge((a.len() + b.len()) as u64 / 10)?,
            (Value::List(a), Value::List(b)) => self.charge((a.len() + b.len()) as u64)?,
            (Value::Bytes(a), Value::Bytes(b)) => {
                self.charge((a.len() + b.len()) as u64 / 10)?;
                return Ok(Value::Bytes(Arc::new([a.as_slice(), b.as_slice()].concat())));
            }
            _ => {}
        }
        (left + right).or_else(|error| failed(error.to_string().chars().take(200).collect::<String>()))
    }

    /// Deep equality; values of different types are different, except numbers.
    pub(crate) fn equal(&mut self, a: &Value, b: &Value) -> Evaluated<bool> {
        self.charge(1)?;
        match (a, b) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Opaque(x), Value::Opaque(y)) => match (as_optional(a), as_optional(b)) {
                (Some(Some(x)), Some(Some(y))) => self.equal(x, y),
                _ => Ok(x.opaque_eq(y.as_ref())),
            },
            (Value::Function(a, _), Value::Function(b, _)) => Ok(a == b),
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Map(a), Value::Map(b)) => self.equal_maps(a, b),
            (Value::String(a), Value::String(b)) => {
                self.charge(a.len().min(b.len()) as u64 / 10)?;
                Ok(a == b)
            }
            _ => Ok(order(a, b) == Some(Ordering::Equal)),
        }
    }

    fn equal_maps(&mut self, a: &Map, b: &Map) -> Evaluated<bool> {
        if a.map.len() != b.map.len() {
            return Ok(false);
        }
        for (key, value) in a.map.iter() {
            match entry(b, key) {
                Some(other) if self.equal(value, other)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn contains(&mut self, container: &Value, wanted: &Value) -> Evaluated<bool> {
        match container {
            Value::List(items) => {
                for item in items.iter() {
                    if self.equal(item, wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(map) => Ok(as_key(wanted).is_some_and(|key| entry(map, &key).is_some())),
            other => no_overload("@in", &[wanted, other]),
        }
    }

    fn call(&mut self, target: Option<&'a Ast>, function: &str, arguments: &'a [Ast]) -> Evaluated {
        let namespaced = match target.map(|target| &target.expr) {
            Some(Expr::Name(name)) if !self.scope.iter().any(|(known, _)| known == name) => {
                functions::in_namespace(name, function)
            }
            _ => None,
        };
        let receiver = match target {
            Some(target) if namespaced.is_none() => Some(self.eval(target)?),
            _ => None,
        };
        let arguments = arguments.iter().map(|argument| self.eval(argument)).collect::<Evaluated<Vec<_>>>()?;
        self.function(namespaced.as_deref().unwrap_or(function), receiver, arguments)
    }
}

/// A type as a value.
pub(crate) fn type_value(name: &str) -> Value {
    Value::Function(Arc::new(name.to_owned()), None)
}

pub(crate) fn no_overload<T>(function: &str, operands: &[&Value]) -> Evaluated<T> {
    let listed: Vec<&str> = operands.iter().map(|value| type_name(value)).collect();
    failed(format!("no such overload: {function}({})", listed.join(", ")))
}
