//! Evaluating rules on objects, within one budget per object.

use std::sync::Arc;

use serde_json::Value;

use crate::cause::Cause;
use crate::cel::{self, Fault, OBJECT_BUDGET};
use crate::correlate::counterpart;
use crate::model::Rule;
use crate::node::Node;
use crate::path::Path;

/// Bytes a computed message may have; a longer one is not used.
const MAX_MESSAGE: usize = 5 * 1024;

/// Evaluates all rules that apply to `new`; rules about `oldSelf` only where there is something to compare with.
pub(crate) fn validate(node: Node<'_>, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut evaluation = Evaluation { causes, budget: OBJECT_BUDGET };
    // Nobody goes on after the budget is spent: the cause has been noted.
    let _ = evaluation.walk(node, new, old, &Path::Root);
}

/// The budget of the object is spent.
struct Spent;

struct Evaluation<'a> {
    causes: &'a mut Vec<Cause>,
    budget: u64,
}

impl Evaluation<'_> {
    fn walk(&mut self, node: Node<'_>, new: &Value, old: Option<&Value>, path: &Path<'_>) -> Result<(), Spent> {
        if new.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        self.rules(node, &node.schema().rules, new, old, path)?;
        if node.has_site() {
            self.rules(node, &node.site().rules, new, old, path)?;
        }
        match new {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let old = old.and_then(|old| old.get(name));
                    if let Some(below) = node.property(name) {
                        self.walk(below, field, old, &path.field(name))?;
                    } else if let Some(below) = node.additional() {
                        self.walk(below, field, old, &path.key(name))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = node.items() else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(node.list_type(), item, old));
                    self.walk(below, item, old, &path.index(index))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: Node<'_>,
        rules: &[Rule],
        new: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
    ) -> Result<(), Spent> {
        if rules.is_empty() {
            return Ok(());
        }
        let itself = cel::from_json(node, new);
        let before = old.map(|old| cel::from_json(node, old));
        // What does not change may be as wrong as it was; rules about changes are asked anyway.
        let unchanged = old == Some(new);
        for rule in rules {
            let Some(program) = &rule.program else { continue };
            if unchanged && !program.uses_old_self() && !rule.optional_old_self {
                continue;
            }
            let mut variables = vec![("self", itself.clone())];
            if rule.optional_old_self {
                variables.push(("oldSelf", cel::optional(before.clone())));
            } else if let Some(before) = &before {
                variables.push(("oldSelf", before.clone()));
            } else if program.uses_old_self() {
                continue;
            }
            match program.run(&variables, &mut self.budget) {
                Ok(cel::Value::Bool(true)) => {}
                Ok(cel::Value::Bool(false)) => {
                    let message = self.message(rule, &variables);
                    self.causes.push(blame(rule, new, path, &message));
                }
                Ok(_) => self.causes.push(blame(rule, new, path, "cel expression must evaluate to a bool")),
                Err(Fault::Failed(fault)) => {
                    let message = format!("{fault} evaluating rule: {}", stated(rule));
                    self.causes.push(blame(rule, new, path, &message));
                }
                Err(Fault::Budget) => {
                    let detail = "validation failed due to running out of cost budget, \
                                  no further validation rules will be run";
                    self.causes.push(Cause::forbidden(path.to_field(), detail));
                    return Err(Spent);
                }
            }
        }
        Ok(())
    }

    /// The computed message if there is one and it is usable.
    fn message(&mut self, rule: &Rule, variables: &[(&str, cel::Value)]) -> String {
        let computed =
            rule.message_program.as_ref().and_then(|program| match program.run(variables, &mut self.budget) {
                Ok(cel::Value::String(text)) => Some(Arc::unwrap_or_clone(text)),
                _ => None,
            });
        let usable =
            |text: &String| !text.trim().is_empty() && !text.contains(['\n', '\r']) && text.len() <= MAX_MESSAGE;
        computed.filter(usable).unwrap_or_else(|| stated(rule))
    }
}

/// The message that needs no evaluation.
fn stated(rule: &Rule) -> String {
    rule.message.clone().unwrap_or_else(|| format!("failed rule: {}", rule.rule.trim()))
}

fn blame(rule: &Rule, new: &Value, path: &Path<'_>, message: &str) -> Cause {
    let below = rule.field_path.as_deref().unwrap_or_default();
    let field = match path {
        Path::Root if below.is_empty() => path.to_field(),
        Path::Root => below.trim_start_matches('.').to_owned(),
        _ => format!("{path}{below}"),
    };
    let value = Value::from(match new {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    });
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => Cause::forbidden(field, message),
        Some("FieldValueRequired") => Cause::required(field, message),
        Some("FieldValueDuplicate") => Cause::duplicate(field, &value),
        _ => Cause::invalid(field, &value, message),
    }
}
