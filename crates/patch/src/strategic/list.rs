//! Lists.

use std::collections::{HashMap, HashSet};

use osc_schema::Node;
use serde_json::{Map, Value};

use super::directives::{self, PATCH};
use super::order::{self, arrange, positions};
use super::{Trail, merge_objects};
use crate::PatchError;
use crate::fields::Element;

/// Merges a list of a patch into one that is there.
pub(super) fn merge<'p>(
    list: Option<Node<'_>>,
    present: Vec<Value>,
    change: &'p [Value],
    path: &mut Trail<'p>,
) -> Result<Vec<Value>, PatchError> {
    let Some(node) = list.filter(|list| list.patch_strategy().merge) else {
        return Ok(change.iter().filter_map(directives::plain).collect());
    };
    let Some(first) = change.iter().chain(&present).next() else { return Ok(present) };
    if first.is_object() || node.patch_merge_key().is_some() {
        merge_items(node, present, change, path)
    } else {
        let live = positions(&present, None);
        Ok(arrange(union(present, change), change, &live, None))
    }
}

/// Merges a list of a patch, if it has one, into one that is there, if it is, and puts all items into `order`.
pub(super) fn merge_in_order<'p>(
    node: Option<Node<'_>>,
    name: &str,
    object: &mut Map<String, Value>,
    change: Option<&'p Value>,
    order: &[Value],
    path: &mut Trail<'p>,
) -> Result<(), PatchError> {
    let list = node.and_then(|node| node.field(name));
    let key = list.and_then(Node::patch_merge_key);
    let present = match object.remove(name) {
        Some(Value::Array(items)) => Some(items),
        Some(Value::Null) | None => None,
        Some(_) => return Err(path.directive("the object has something else than a list here".to_owned())),
    };
    let change = match change {
        Some(Value::Array(items)) => Some(items.as_slice()),
        None => None,
        Some(Value::Null) => return Ok(()),
        Some(_) => return Err(path.directive("$setElementOrder needs a list beside it".to_owned())),
    };
    check_order(change.unwrap_or_default(), order, key, path)?;
    let live = positions(present.as_deref().unwrap_or_default(), key);
    let merged = match (present, change) {
        (None, None) => return Ok(()),
        (Some(present), None) => present,
        (None, Some(change)) => change.iter().filter_map(directives::plain).collect(),
        (Some(present), Some(change)) => merge(list, present, change, path)?,
    };
    object.insert(name.to_owned(), Value::Array(arrange(merged, order, &live, key)));
    Ok(())
}

/// The items of a patch come in the order the patch asks for, and are all named there.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>, path: &Trail<'_>) -> Result<(), PatchError> {
    let wanted = positions(order, key);
    let mut last = None;
    for item in change.iter().filter(|item| item.get(PATCH).is_none()) {
        let position = wanted.get(&order::name(item, key)).copied();
        if position.is_none() || position < last {
            return Err(path.directive("the order of the list does not match its $setElementOrder".to_owned()));
        }
        last = position;
    }
    Ok(())
}

/// Merges lists of objects by their merge key.
fn merge_items<'p>(
    list: Node<'_>,
    mut present: Vec<Value>,
    change: &'p [Value],
    path: &mut Trail<'p>,
) -> Result<Vec<Value>, PatchError> {
    let Some(key) = list.patch_merge_key() else {
        return Err(path.directive("cannot merge lists without merge key".to_owned()));
    };
    let no_key = |path: &Trail<'_>| PatchError::NoMergeKey { path: path.to_string(), key: key.to_owned() };
    let mut changes: Vec<(Element, &'p Map<String, Value>)> = Vec::with_capacity(change.len());
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in change {
        let Value::Object(fields) = item else { return Err(no_key(path)) };
        match fields.get(PATCH).map(Value::as_str) {
            Some(Some("replace")) => replace = true,
            directive @ (None | Some(Some("delete"))) => {
                if !fields.contains_key(key) {
                    return Err(no_key(path));
                }
                let name = order::name(item, Some(key));
                if directive.is_some() {
                    deleted.insert(name);
                } else {
                    changes.push((name, fields));
                }
            }
            Some(Some("merge")) => return Err(path.directive("lists are merged without saying so".to_owned())),
            Some(_) => return Err(path.directive(format!("unknown patch type {} in a list", fields[PATCH]))),
        }
    }
    if replace {
        let items = changes.into_iter().filter_map(|(_, fields)| directives::plain(&Value::Object(fields.clone())));
        return Ok(items.collect());
    }
    present.retain(|item| !deleted.contains(&order::name(item, Some(key))));
    let live = positions(&present, Some(key));
    let items = list.items();
    let mut merged = present;
    let mut at: HashMap<Element, usize> = live.clone();
    for (name, fields) in changes {
        match at.get(&name) {
            Some(&position) => {
                let item = match merged[position].take() {
                    Value::Object(item) => item,
                    _ => Map::new(),
                };
                merged[position] = Value::Object(merge_objects(items, item, fields, path)?);
            }
            None => {
                at.insert(name, merged.len());
                merged.extend(directives::plain(&Value::Object(fields.clone())));
            }
        }
    }
    Ok(arrange(merged, change, &live, Some(key)))
}

/// All scalars of both, each once.
fn union(present: Vec<Value>, change: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let all = present.into_iter().chain(change.iter().cloned());
    all.filter(|item| seen.insert(Element::value(item))).collect()
}

/// Removes scalars from a list, if it is there.
pub(super) fn delete_scalars(object: &mut Map<String, Value>, list: &str, gone: &[Value]) {
    let gone: HashSet<Element> = gone.iter().map(Element::value).collect();
    if let Some(Value::Array(items)) = object.get_mut(list) {
        items.retain(|item| !gone.contains(&Element::value(item)));
    }
}
