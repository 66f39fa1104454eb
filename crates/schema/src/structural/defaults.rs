//! Defaults of a schema, judged by the schema.

use crate::cause::Cause;
use crate::node::Node;
use crate::path::Path;
use crate::prune::prune;
use crate::validate::validate_values;

/// Defaults must be valid values of their own schema.
pub(super) fn check(node: Node<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(default) = node.site().default.as_ref() {
        let field = path.field("default");
        let mut pruned = default.clone();
        prune(node, &mut pruned);
        if pruned != *default {
            causes.push(Cause::invalid(field, default, "must not have unknown fields"));
        }
        crate::default(node, &mut pruned);
        causes.extend(validate_values(node, &pruned).into_iter().map(|cause| below_default(cause, &field)));
    }
    if node.has_site() {
        return;
    }
    let properties = path.field("properties");
    node.properties().for_each(|(name, below)| check(below, &properties.key(name), causes));
    if let Some(below) = node.additional() {
        check(below, &path.field("additionalProperties"), causes);
    }
    if let Some(below) = node.items() {
        check(below, &path.field("items"), causes);
    }
}

fn below_default(cause: Cause, default: &Path<'_>) -> Cause {
    let field = match cause.field.as_str() {
        "<nil>" => default.to_string(),
        inner if inner.starts_with('[') => format!("{default}{inner}"),
        inner => format!("{default}.{inner}"),
    };
    Cause { field, ..cause }
}
