//! Checking expressions before there are values: names, fields, functions and, where they are known, types.

use std::sync::Arc;

use super::Problem;
use super::ast::{Ast, Element, Expr, Fold, FoldKind, Operator};
use super::functions::{self, Overload};
use super::types::Type;
use super::value::{Value, unescape};

/// The type of `ast`, in which only `variables` exist.
pub(crate) fn check<'a>(ast: &Ast, variables: &[(&str, Type<'a>)]) -> Result<Type<'a>, Problem> {
    let scope = variables.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    Checker { scope }.kind(ast)
}

struct Checker<'a> {
    scope: Vec<(String, Type<'a>)>,
}

type Checked<'a> = Result<Type<'a>, Problem>;

/// Names of types are values of type `type`.
const TYPE_NAMES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

fn mismatch(ast: &Ast, function: &str, operands: &[&Type<'_>]) -> Problem {
    let listed: Vec<String> = operands.iter().map(ToString::to_string).collect();
    Problem::new(ast.at, format!("found no matching overload for '{function}' applied to '({})'", listed.join(", ")))
}

impl<'a> Checker<'a> {
    fn kind(&mut self, ast: &Ast) -> Checked<'a> {
        match &ast.expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Name(name) => self.name(ast, name),
            Expr::Select { operand, field, optional } => {
                let operand = self.kind(operand)?;
                self.select(ast, &operand, field, *optional)
            }
            Expr::Has { operand, field } => {
                let operand = self.kind(operand)?;
                self.select(ast, &operand, field, false)?;
                Ok(Type::Bool)
            }
            Expr::Index { operand, index, optional } => self.index(ast, operand, index, *optional),
            Expr::List(items) => self.list(items),
            Expr::Map(entries) => self.map(ast, entries),
            Expr::Not(operand) => {
                self.wants(operand, &Type::Bool, "!_")?;
                Ok(Type::Bool)
            }
            Expr::Negate(operand) => {
                let kind = self.kind(operand)?;
                let fits = matches!(kind, Type::Int | Type::Double | Type::Duration | Type::Dyn);
                if fits { Ok(kind) } else { Err(mismatch(ast, "-_", &[&kind])) }
            }
            Expr::And(terms) => self.all_bool(terms, "_&&_"),
            Expr::Or(terms) => self.all_bool(terms, "_||_"),
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.kind(left)?, self.kind(right)?);
                binary(*operator, &left, &right).ok_or_else(|| mismatch(ast, operator.symbol(), &[&left, &right]))
            }
            Expr::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                self.wants(condition, &Type::Bool, "_?_:_")?;
                Ok(self.kind(then)?.or(self.kind(otherwise)?))
            }
            Expr::Call { target, function, arguments } => self.call(ast, target.as_deref(), function, arguments),
            Expr::Fold(fold) => self.fold(fold),
            Expr::Bind { name, value, body } => {
                let value = self.kind(value)?;
                self.within(vec![(name.clone(), value)], |checker| checker.kind(body))
            }
            Expr::OptionalMap { target, name, body, .. } => {
                let inner = match self.kind(target)? {
                    Type::Optional(inner) => Arc::unwrap_or_clone(inner),
                    Type::Dyn => Type::Dyn,
                    other => return Err(mismatch(ast, "optMap", &[&other])),
                };
                Ok(self.within(vec![(name.clone(), inner)], |checker| checker.kind(body))?.optional())
            }
        }
    }

    /// Checks with more names in scope.
    fn within(&mut self, names: Vec<(String, Type<'a>)>, check: impl FnOnce(&mut Self) -> Checked<'a>) -> Checked<'a> {
        let before = self.scope.len();
        self.scope.extend(names);
        let result = check(self);
        self.scope.truncate(before);
        result
    }

    fn variable(&self, name: &str) -> Option<&Type<'a>> {
        self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind)
    }

    fn name(&self, ast: &Ast, name: &str) -> Checked<'a> {
        match self.variable(name) {
            Some(kind) => Ok(kind.clone()),
            None if TYPE_NAMES.contains(&name) => Ok(Type::Named("type")),
            None => Err(Problem::new(ast.at, format!("undeclared reference to '{name}' (in container '')"))),
        }
    }

    fn wants(&mut self, operand: &Ast, wanted: &Type<'_>, function: &str) -> Result<(), Problem> {
        let kind = self.kind(operand)?;
        if kind.fits(wanted) { Ok(()) } else { Err(mismatch(operand, function, &[&kind])) }
    }

    fn all_bool(&mut self, terms: &[Ast], function: &str) -> Checked<'a> {
        terms.iter().try_for_each(|term| self.wants(term, &Type::Bool, function))?;
        Ok(Type::Bool)
    }

    fn select(&self, ast: &Ast, operand: &Type<'a>, field: &str, optional: bool) -> Checked<'a> {
        let kind = match operand {
            Type::Dyn => Type::Dyn,
            Type::Map(value) => Type::clone(value),
            Type::Optional(inner) => return Ok(self.select(ast, inner, field, true)?.optional()),
            Type::Metadata if matches!(field, "name" | "generateName") => Type::Text,
            Type::Object(node) => {
                let found = node.property(field).or_else(|| unescape(field).and_then(|plain| node.property(&plain)));
                Type::of(found.ok_or_else(|| Problem::new(ast.at, format!("undefined field '{field}'")))?)
            }
            Type::Metadata => return Err(Problem::new(ast.at, format!("undefined field '{field}'"))),
            other => return Err(Problem::new(ast.at, format!("type '{other}' does not support field selection"))),
        };
        Ok(if optional { kind.optional() } else { kind })
    }

    fn index(&mut self, ast: &Ast, operand: &Ast, index: &Ast, optional: bool) -> Checked<'a> {
        let (outer, index) = (self.kind(operand)?, self.kind(index)?);
        let (inner, optional) = match &outer {
            Type::Optional(inner) => (Type::clone(inner), true),
            other => (other.clone(), optional),
        };
        let kind = match &inner {
            Type::Dyn => Type::Dyn,
            Type::List(item) if index.is_number() => Type::clone(item),
            Type::Map(value) if index.fits(&Type::Text) => Type::clone(value),
            _ => return Err(mismatch(ast, "_[_]", &[&outer, &index])),
        };
        Ok(if optional { kind.optional() } else { kind })
    }

    fn list(&mut self, items: &[Element]) -> Checked<'a> {
        let mut item_kind = None;
        for item in items {
            let kind = match self.kind(&item.value)? {
                Type::Optional(inner) if item.optional => Arc::unwrap_or_clone(inner),
                other => other,
            };
            item_kind = Some(match item_kind {
                None => kind,
                Some(known) => kind.or(known),
            });
        }
        Ok(Type::List(Arc::new(item_kind.unwrap_or(Type::Dyn))))
    }

    fn map(&mut self, ast: &Ast, entries: &[(Ast, Element)]) -> Checked<'a> {
        let mut value_kind = None;
        for (key, element) in entries {
            let key = self.kind(key)?;
            if !matches!(key, Type::Text | Type::Bool | Type::Int | Type::Uint | Type::Dyn) {
                return Err(Problem::new(ast.at, format!("unsupported map key type '{key}'")));
            }
            let kind = self.kind(&element.value)?;
            // Keys other than strings are possible but rare: nothing is said about such maps.
            let known = matches!(key, Type::Text) && !element.optional;
            value_kind = Some(match value_kind {
                _ if !known => Type::Dyn,
                None => kind,
                Some(before) => kind.or(before),
            });
        }
        let all_text = !matches!(value_kind, None | Some(Type::Dyn));
        Ok(if all_text { Type::Map(Arc::new(value_kind.unwrap_or(Type::Dyn))) } else { Type::Dyn })
    }

    fn call(&mut self, ast: &Ast, target: Option<&Ast>, function: &str, arguments: &[Ast]) -> Checked<'a> {
        let namespaced = match target.map(|target| &target.expr) {
            Some(Expr::Name(name)) if self.variable(name).is_none() => functions::in_namespace(name, function),
            _ => None,
        };
        let name = namespaced.as_deref().unwrap_or(function);
        let receiver = match target {
            Some(target) if namespaced.is_none() => Some(self.kind(target)?),
            _ => None,
        };
        let arguments = arguments.iter().map(|argument| self.kind(argument)).collect::<Result<Vec<_>, _>>()?;
        let overloads = functions::overloads(name);
        if overloads.is_empty() {
            return Err(Problem::new(ast.at, format!("undeclared reference to '{name}' (in container '')")));
        }
        let accepts = |overload: &&Overload| {
            let receives = match (&receiver, &overload.receiver) {
                (Some(kind), Some(wanted)) => kind.fits(wanted),
                (None, None) => true,
                _ => false,
            };
            receives
                && overload.arguments.len() == arguments.len()
                && arguments.iter().zip(&overload.arguments).all(|(kind, wanted)| kind.fits(wanted))
        };
        let mut results = overloads.iter().filter(accepts).map(|overload| overload.result.clone());
        let Some(result) = results.next() else {
            let operands: Vec<&Type<'_>> = receiver.iter().chain(&arguments).collect();
            return Err(mismatch(ast, name, &operands));
        };
        let result = results.fold(result, Type::or);
        Ok(precise(name, result, receiver, arguments))
    }

    fn fold(&mut self, fold: &Fold) -> Checked<'a> {
        let range = self.kind(&fold.range)?;
        let (key, item) = match &range {
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(item) => (Type::Int, Type::clone(item)),
            Type::Map(value) => (Type::Text, Type::clone(value)),
            other => {
                let text = format!("expression of type '{other}' cannot be range of a comprehension");
                return Err(Problem::new(fold.range.at, text + " (must be list, map, or dynamic)"));
            }
        };
        let (first, second) = &fold.names;
        let names = match second {
            Some(second) => vec![(first.clone(), key), (second.clone(), item)],
            None if matches!(range, Type::Map(_)) => vec![(first.clone(), key)],
            None => vec![(first.clone(), item)],
        };
        let each = names.first().map_or(Type::Dyn, |(_, kind)| kind.clone());
        self.within(names, |checker| {
            if let Some(filter) = &fold.filter {
                checker.wants(filter, &Type::Bool, "map")?;
            }
            match fold.kind {
                FoldKind::Map => Ok(Type::List(Arc::new(checker.kind(&fold.body)?))),
                FoldKind::Filter => {
                    checker.wants(&fold.body, &Type::Bool, "filter")?;
                    Ok(Type::List(Arc::new(each)))
                }
                FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => {
                    checker.wants(&fold.body, &Type::Bool, "_&&_")?;
                    Ok(Type::Bool)
                }
            }
        })
    }
}

fn literal<'a>(value: &Value) -> Type<'a> {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::UInt(_) => Type::Uint,
        Value::Float(_) => Type::Double,
        Value::String(_) => Type::Text,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

fn binary<'a>(operator: Operator, left: &Type<'a>, right: &Type<'a>) -> Option<Type<'a>> {
    let numbers = left.is_number() && right.is_number();
    let unknown = matches!(left, Type::Dyn) || matches!(right, Type::Dyn);
    let same = std::mem::discriminant(left) == std::mem::discriminant(right);
    match operator {
        Operator::Equal | Operator::NotEqual => (numbers || left.fits(right)).then_some(Type::Bool),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let ordered = |kind: &Type<'_>| {
                matches!(kind, Type::Text | Type::Bytes | Type::Bool | Type::Duration | Type::Timestamp)
            };
            (unknown || numbers || (same && ordered(left))).then_some(Type::Bool)
        }
        Operator::In => match right {
            Type::Dyn => Some(Type::Bool),
            Type::List(item) => (left.fits(item) || (left.is_number() && item.is_number())).then_some(Type::Bool),
            Type::Map(_) => left.fits(&Type::Text).then_some(Type::Bool),
            _ => None,
        },
        _ if unknown => Some(Type::Dyn),
        _ if numbers => {
            (same && !(operator == Operator::Remainder && matches!(left, Type::Double))).then(|| left.clone())
        }
        Operator::Add => match (left, right) {
            (Type::Text, Type::Text) | (Type::Bytes, Type::Bytes) | (Type::Duration, Type::Duration) => {
                Some(left.clone())
            }
            (Type::List(_), Type::List(_)) => Some(left.clone().or(right.clone())),
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => Some(Type::Timestamp),
            _ => None,
        },
        Operator::Subtract => match (left, right) {
            (Type::Timestamp | Type::Duration, Type::Duration) => Some(left.clone()),
            (Type::Timestamp, Type::Timestamp) => Some(Type::Duration),
            _ => None,
        },
        _ => None,
    }
}

/// Results that follow from the operands more closely than signatures tell.
fn precise<'a>(name: &str, result: Type<'a>, receiver: Option<Type<'a>>, mut arguments: Vec<Type<'a>>) -> Type<'a> {
    match (name, receiver) {
        ("value" | "orValue", Some(Type::Optional(inner))) => Arc::unwrap_or_clone(inner),
        ("or", Some(optional @ Type::Optional(_))) => optional,
        ("optional.of" | "optional.ofNonZeroValue", None) => arguments.pop().map_or(result, Type::optional),
        ("slice" | "sort" | "distinct", Some(list @ Type::List(_))) => list,
        ("reverse", Some(same)) => same,
        ("first" | "last", Some(Type::List(item))) => Type::Optional(item),
        ("min" | "max" | "sum", Some(Type::List(item))) => Arc::unwrap_or_clone(item),
        _ => result,
    }
}
