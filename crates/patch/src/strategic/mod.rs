//! Strategic merge patch: a merge patch that knows lists.
//!
//! Objects are merged as by a merge patch. A list is replaced, unless the schema says that it is merged: by a merge
//! key if it holds objects, as a set if it holds scalars. Directives in the patch say what a merge cannot:
//!
//! | directive | where | does |
//! |---|---|---|
//! | `$patch: replace` | object | the object becomes what else the patch has |
//! | `$patch: delete` | object | the object becomes empty |
//! | `$patch: merge` | object | what happens anyway |
//! | `$patch: delete` | item of a list | items with the same merge key go away |
//! | `$patch: replace` | item of a list | the list becomes the other items |
//! | `$retainKeys: […]` | object | all other fields go away |
//! | `$setElementOrder/<list>: […]` | beside a list | items are put into this order |
//! | `$deleteFromPrimitiveList/<list>: […]` | beside a list | these scalars go away |
//!
//! Documented by Kubernetes in "Strategic Merge Patch" of its contributor guide.

mod directives;
mod list;
mod order;

use osc_schema::{MAX_DEPTH, Node, within_depth};
use serde_json::{Map, Value};

use crate::{PatchError, json::type_of};
use directives::{DELETE_FROM_LIST, PATCH, RETAIN_KEYS, SET_ORDER};

/// Applies `patch` to a copy of `object`.
pub fn strategic(node: Node<'_>, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else { return Err(PatchError::NotAnObject { found: type_of(patch) }) };
    // Recursion follows both.
    if !within_depth(object) || patch.values().any(|field| !within_depth(field)) {
        return Err(PatchError::TooDeep);
    }
    let mut path = Trail(Vec::with_capacity(MAX_DEPTH));
    let object = match object {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    merge_objects(Some(node), object, patch, &mut path).map(Value::Object)
}

/// Where in the patch we are, for messages.
struct Trail<'p>(Vec<&'p str>);

impl Trail<'_> {
    fn directive(&self, problem: String) -> PatchError {
        PatchError::Directive { path: self.to_string(), problem }
    }
}

impl std::fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("the top") } else { f.write_str(&self.0.join(".")) }
    }
}

fn merge_objects<'p>(
    node: Option<Node<'_>>,
    mut object: Map<String, Value>,
    patch: &'p Map<String, Value>,
    path: &mut Trail<'p>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(PATCH).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            let rest = patch.iter().filter(|(name, value)| *name != PATCH && !value.is_null());
            return Ok(rest.filter_map(|(name, value)| Some((name.clone(), directives::plain(value)?))).collect());
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(path.directive(format!("unknown patch type {} in map", patch[PATCH]))),
    }
    directives::retain_keys(&mut object, patch, path)?;
    let ordered = directives::ordered_lists(patch);
    for &list in &ordered {
        path.0.push(list);
        let order = directives::list_of(patch, SET_ORDER, list, path)?;
        list::merge_in_order(node, list, &mut object, patch.get(list), order, path)?;
        path.0.pop();
    }
    for (name, change) in patch {
        if [PATCH, RETAIN_KEYS].contains(&name.as_str()) || name.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            let gone = directives::list_of(patch, DELETE_FROM_LIST, list, path)?;
            list::delete_scalars(&mut object, list, gone);
        } else if !ordered.contains(&name.as_str()) {
            path.0.push(name);
            merge_field(node, &mut object, name, change, path)?;
            path.0.pop();
        }
    }
    Ok(object)
}

fn merge_field<'p>(
    node: Option<Node<'_>>,
    object: &mut Map<String, Value>,
    name: &str,
    change: &'p Value,
    path: &mut Trail<'p>,
) -> Result<(), PatchError> {
    let field = node.and_then(|node| node.field(name));
    let merged = match (object.remove(name), change) {
        (_, Value::Null) => None,
        (Some(Value::Object(present)), Value::Object(change)) => {
            Some(Value::Object(merge_objects(field, present, change, path)?))
        }
        (Some(Value::Array(present)), Value::Array(change)) => {
            Some(Value::Array(list::merge(field, present, change, path)?))
        }
        (_, change) => directives::plain(change),
    };
    if let Some(merged) = merged {
        object.insert(name.to_owned(), merged);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
