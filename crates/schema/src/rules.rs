//! CEL rules of schemas (`x-kubernetes-validations`): compiled when a definition is accepted, evaluated on objects.

use std::sync::Arc;

use serde_json::Value;

use crate::cause::Cause;
use crate::cel::{self, Fault, OBJECT_BUDGET, Outcome, Program, Type};
use crate::jsonpath::JsonPath;
use crate::model::{ListType, Rule, Schema};
use crate::node::Node;
use crate::path::Path;

/// Reasons a rule may give.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Bytes a computed message may have; a longer one is not used.
const MAX_MESSAGE: usize = 5 * 1024;

/// Compiles all rules of `schema`, which stands at `path` of its definition.
pub(crate) fn compile(schema: &mut Schema, path: &Path<'_>, causes: &mut Vec<Cause>) {
    compile_below(schema, path, None, causes);
}

/// `uncorrelatable` is the list above, if any, whose items cannot be told apart between two versions of an object.
fn compile_below(schema: &mut Schema, path: &Path<'_>, uncorrelatable: Option<&str>, causes: &mut Vec<Cause>) {
    let mut rules = std::mem::take(&mut schema.rules);
    let list = path.field("x-kubernetes-validations");
    for (index, rule) in rules.iter_mut().enumerate() {
        compile_rule(rule, Node::custom(schema), &list.index(index), uncorrelatable, causes);
    }
    schema.rules = rules;

    let properties = path.field("properties");
    for (name, below) in &mut schema.properties {
        compile_below(below, &properties.key(name), uncorrelatable, causes);
    }
    if let Some(below) = &mut schema.additional {
        compile_below(below, &path.field("additionalProperties"), uncorrelatable, causes);
    }
    if let Some(below) = &mut schema.items {
        let path = path.field("items");
        let here = (!matches!(schema.list_type, ListType::Map(_))).then(|| path.to_string());
        compile_below(below, &path, uncorrelatable.or(here.as_deref()), causes);
    }
}

fn compile_rule(
    rule: &mut Rule,
    node: Node<'_>,
    path: &Path<'_>,
    uncorrelatable: Option<&str>,
    causes: &mut Vec<Cause>,
) {
    let field = path.field("rule");
    if rule.rule.trim().is_empty() {
        causes.push(Cause::required(field, "rule is not specified"));
        return;
    }
    wording(rule, path, causes);
    field_path(rule, node, path, causes);
    let itself = Type::of(node);
    let old = if rule.optional_old_self { itself.clone().optional() } else { itself.clone() };
    let variables = [("self", itself), ("oldSelf", old)];
    let mut refuse = |field: Path<'_>, text: &str, detail: &str| {
        causes.push(Cause::invalid(field, &Value::from(text), detail));
    };
    match Program::compile(&rule.rule, &variables) {
        Err(error) => refuse(field, &rule.rule, &format!("compilation failed: {error}")),
        Ok(program) if !matches!(program.outcome(), Outcome::Bool | Outcome::Unknown) => {
            refuse(field, &rule.rule, "cel expression must evaluate to a bool");
        }
        Ok(program) => {
            if let Some(list) = uncorrelatable.filter(|_| program.uses_old_self()) {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                refuse(field, &rule.rule, &detail);
            }
            if rule.optional_old_self && !program.uses_old_self() {
                let detail = "may not be set if oldSelf is not used in rule";
                refuse(path.field("optionalOldSelf"), "true", detail);
            }
            rule.program = Some(program);
        }
    }
    let Some(text) = &rule.message_expression else { return };
    let field = path.field("messageExpression");
    match Program::compile(text, &variables) {
        Err(error) => refuse(field, text, &format!("messageExpression compilation failed: {error}")),
        Ok(program) if !matches!(program.outcome(), Outcome::Text | Outcome::Unknown) => {
            refuse(field, text, "messageExpression must evaluate to a string");
        }
        Ok(program) => rule.message_program = Some(program),
    }
}

/// What is said besides the rule itself.
fn wording(rule: &Rule, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let field = path.field("message");
    match rule.message.as_deref() {
        Some(message) if message.trim().is_empty() => {
            causes.push(Cause::invalid(field, &Value::from(message), "message must be non-empty if specified"));
        }
        Some(message) if message.contains(['\n', '\r']) => {
            causes.push(Cause::invalid(field, &Value::from(message), "message must not contain line breaks"));
        }
        None if rule.rule.contains(['\n', '\r']) && rule.message_expression.is_none() => {
            causes.push(Cause::required(field, "message must be specified if rule contains line breaks"));
        }
        _ => {}
    }
    if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
        causes.push(Cause::not_supported(path.field("reason"), &Value::from(reason), &REASONS));
    }
}

/// The field to blame must exist.
fn field_path(rule: &Rule, node: Node<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(text) = rule.field_path.as_deref() else { return };
    let parsed = JsonPath::parse(text);
    let names = parsed.as_ref().ok().and_then(JsonPath::fields);
    let leads_somewhere = names.is_some_and(|names| {
        text.starts_with(['.', '[']) && names.iter().try_fold(node, |node, name| node.field(name)).is_some()
    });
    if !leads_somewhere {
        let detail = "fieldPath must be a valid path to a field below the rule";
        causes.push(Cause::invalid(path.field("fieldPath"), &Value::from(text), detail));
    }
}

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
        for rule in rules {
            let Some(program) = &rule.program else { continue };
            let mut variables = vec![("self", itself.clone())];
            if rule.optional_old_self {
                variables.push(("oldSelf", cel::optional(before.clone())));
            } else if let Some(before) = &before {
                variables.push(("oldSelf", before.clone()));
            } else if program.uses_old_self() {
                continue;
            }
            match program.run(&variables, &mut self.budget) {
                Ok(kube_cel::cel::Value::Bool(true)) => {}
                Ok(kube_cel::cel::Value::Bool(false)) => {
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
    fn message(&mut self, rule: &Rule, variables: &[(&str, kube_cel::cel::Value)]) -> String {
        let computed =
            rule.message_program.as_ref().and_then(|program| match program.run(variables, &mut self.budget) {
                Ok(kube_cel::cel::Value::String(text)) => Some(Arc::unwrap_or_clone(text)),
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

/// The item of `old` that is the same as `item`, if the list can tell.
fn counterpart<'a>(list_type: &ListType, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let ListType::Map(keys) = list_type else { return None };
    old.as_array()?.iter().find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}

#[cfg(test)]
mod tests;
