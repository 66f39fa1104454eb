//! Compiling the rules of a definition and judging what is said about them.

use serde_json::Value;

use crate::cause::Cause;
use crate::cel::{Outcome, Program, Type};
use crate::jsonpath::JsonPath;
use crate::model::{ListType, Rule, Schema};
use crate::node::Node;
use crate::path::Path;

/// Reasons a rule may give.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

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
