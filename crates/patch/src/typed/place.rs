//! Where in an object we are, and what the schema says about it.

use std::collections::BTreeMap;

use osc_schema::{Kind, ListType, MapType, Node};
use serde_json::Value;

use crate::fields::Element;

/// Levels that are owned one by one; what is deeper is owned whole. FieldsV1 nests as deep as the object and lies five
/// levels deep inside it: together they must stay below [`osc_schema::MAX_DEPTH`], else the object could be stored and
/// never be read again.
const MAX_OWNED_DEPTH: usize = 100;

/// A place in an object. Where the schema ends, values speak for themselves: objects are granular, lists atomic.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    node: Option<Node<'a>>,
    depth: usize,
}

/// How a value is owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape<'a> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Fields,
    /// Item by item.
    Items(Identity<'a>),
}

/// What tells the items of a list apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// The values of these fields.
    Keys(&'a [String]),
    /// Their value.
    Value,
}

impl<'a> Place<'a> {
    /// The whole object.
    pub fn root(node: Node<'a>) -> Self {
        Self { node: Some(node), depth: 0 }
    }

    fn below(self, node: Option<Node<'a>>) -> Self {
        Self { node, depth: self.depth + 1 }
    }

    /// The field `name`.
    pub fn field(self, name: &str) -> Self {
        self.below(self.node.and_then(|node| node.field(name)))
    }

    /// Any item.
    pub fn item(self) -> Self {
        self.below(self.node.and_then(Node::items))
    }

    /// Where `element` leads to.
    pub fn child(self, element: &Element) -> Self {
        match element {
            Element::Field(name) => self.field(name),
            Element::Key(_) | Element::Value(_) => self.item(),
        }
    }

    /// Whether the schema describes the field `name` by itself, not as one of a map.
    pub fn names(self, name: &str) -> bool {
        self.node.is_some_and(|node| node.property(name).is_some())
    }

    /// Whether `null` is a value here.
    pub fn nullable(self) -> bool {
        self.node.is_none_or(|node| node.nullable() || node.kind() == Kind::Any)
    }

    /// How `value`, found here, is owned.
    pub fn shape(self, value: &Value) -> Shape<'a> {
        if self.depth >= MAX_OWNED_DEPTH {
            return Shape::Leaf;
        }
        match (value, self.node) {
            (Value::Object(_), None) => Shape::Fields,
            (Value::Object(_), Some(node)) => {
                let untyped = node.kind() == Kind::Any && !node.preserves_unknown_fields();
                let atomic = untyped || node.map_type() == MapType::Atomic;
                if atomic { Shape::Leaf } else { Shape::Fields }
            }
            (Value::Array(_), Some(node)) => match node.list_type() {
                ListType::Atomic => Shape::Leaf,
                ListType::Set => Shape::Items(Identity::Value),
                ListType::Map(keys) => Shape::Items(Identity::Keys(keys)),
            },
            _ => Shape::Leaf,
        }
    }

    /// Whether whatever is found here is owned whole.
    pub fn is_whole(self) -> bool {
        let Some(node) = self.node else { return self.depth >= MAX_OWNED_DEPTH };
        self.depth >= MAX_OWNED_DEPTH
            || match node.kind() {
                Kind::Any => !node.preserves_unknown_fields(),
                Kind::Object => node.map_type() == MapType::Atomic,
                Kind::Array => *node.list_type() == ListType::Atomic,
                _ => true,
            }
    }

    /// What tells `item` of this list from others. Key fields that are absent count with their defaults; an item that
    /// has none of them, or is no object, cannot be told apart.
    pub fn identify(self, identity: Identity<'_>, item: &Value) -> Option<Element> {
        let keys = match identity {
            Identity::Value => return (!item.is_null()).then(|| Element::value(item)),
            Identity::Keys(keys) => keys,
        };
        let fields = item.as_object()?;
        let item_place = self.item();
        let present: Vec<(&str, &Value)> = keys
            .iter()
            .filter_map(|key| {
                let given = fields.get(key).filter(|value| !value.is_null());
                Some((key.as_str(), given.or_else(|| item_place.field(key).node?.default())?))
            })
            .collect();
        (!present.is_empty()).then(|| Element::key(present))
    }

    /// Items by what tells them apart; several under one name if the list breaks its own rule. Items that cannot be
    /// told apart are left out: nobody owns them.
    pub fn index<'v>(self, identity: Identity<'_>, items: &'v [Value]) -> BTreeMap<Element, Vec<&'v Value>> {
        let mut index: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
        for item in items {
            if let Some(element) = self.identify(identity, item) {
                index.entry(element).or_default().push(item);
            }
        }
        index
    }
}
