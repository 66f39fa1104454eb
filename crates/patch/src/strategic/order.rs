//! In which order items of merged lists come.

use std::collections::HashMap;

use serde_json::Value;

use crate::fields::Element;

/// What tells an item from others: the value of the merge key, or the item itself.
pub(super) fn name(item: &Value, key: Option<&str>) -> Element {
    match key {
        Some(key) => Element::value(item.get(key).unwrap_or(&Value::Null)),
        None => Element::value(item),
    }
}

/// Position of the first item of each name.
pub(super) fn positions(items: &[Value], key: Option<&str>) -> HashMap<Element, usize> {
    let mut positions = HashMap::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        positions.entry(name(item, key)).or_insert(position);
    }
    positions
}

/// Puts the items of a merged list into order. Items named in `wanted` come in that order. The others keep the order
/// they had in `live`, each before the first wanted item that stood behind it there, but never before one that was
/// put in place already.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    live: &HashMap<Element, usize>,
    key: Option<&str>,
) -> Vec<Value> {
    let wanted = positions(wanted, key);
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let name = name(&item, key);
        let place = live.get(&name).copied();
        match wanted.get(&name) {
            Some(&position) => named.push((position, place, item)),
            None => others.push((place, item)),
        }
    }
    named.sort_by_key(|(position, _, _)| *position);
    others.sort_by_key(|(place, _)| *place);
    let mut others = others.into_iter().peekable();
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    for (_, place, item) in named {
        if let Some(place) = place {
            while let Some((_, other)) = others.next_if(|(before, _)| before.is_some_and(|before| before < place)) {
                arranged.push(other);
            }
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|(_, item)| item));
    arranged
}
