//! `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::Value;

use crate::cause::Cause;
use crate::model::{Checks, Schema};
use crate::node::Node;
use crate::path::Path;

pub(super) fn check(node: Node<'_>, checks: &Checks, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let attempt = |branch: &Schema| {
        let mut causes = Vec::new();
        super::check(Node::new(branch, node.definitions()), value, None, path, &mut causes);
        causes
    };
    let says = |text: &str| Cause::invalid(path.to_field(), &Value::from(""), &format!("\"{path}\" must {text}"));

    let failed: Vec<Cause> = checks.all_of.iter().flat_map(attempt).collect();
    if !failed.is_empty() {
        causes.push(says("validate all the schemas (allOf)"));
        causes.extend(failed);
    }
    if !checks.any_of.is_empty() {
        let closest = closest(checks.any_of.iter().map(attempt));
        if !closest.is_empty() {
            causes.push(says("validate at least one schema (anyOf)"));
            causes.extend(closest);
        }
    }
    if !checks.one_of.is_empty() {
        let attempts: Vec<Vec<Cause>> = checks.one_of.iter().map(attempt).collect();
        match attempts.iter().filter(|causes| causes.is_empty()).count() {
            1 => {}
            0 => {
                causes.push(says("validate one and only one schema (oneOf). Found none valid"));
                causes.extend(closest(attempts.into_iter()));
            }
            many => {
                let text = format!("validate one and only one schema (oneOf). Found {many} valid alternatives");
                causes.push(says(&text));
            }
        }
    }
    if checks.not.as_deref().is_some_and(|not| attempt(not).is_empty()) {
        causes.push(says("not validate the schema (not)"));
    }
}

/// Complaints of the alternative that came closest.
fn closest(attempts: impl Iterator<Item = Vec<Cause>>) -> Vec<Cause> {
    attempts.min_by_key(Vec::len).unwrap_or_default()
}
