//! The schema itself: plain data, the same for built-in kinds and custom resources.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::cel::Program;

/// The JSON type a schema asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No type given: anything goes, subject to the other keywords.
    #[default]
    Any,
    /// A JSON object: [`Schema::properties`] and [`Schema::additional`].
    Object,
    /// A JSON array: [`Schema::items`].
    Array,
    /// A string.
    String,
    /// A number without a fraction.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Kind {
    /// The word used in JSON schemas; none for [`Kind::Any`].
    pub fn name(self) -> Option<&'static str> {
        match self {
            Kind::Any => None,
            Kind::Object => Some("object"),
            Kind::Array => Some("array"),
            Kind::String => Some("string"),
            Kind::Integer => Some("integer"),
            Kind::Number => Some("number"),
            Kind::Boolean => Some("boolean"),
        }
    }
}

/// Who owns what in a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole, owned as a whole.
    #[default]
    Atomic,
    /// Scalars, each at most once, each with its own owners.
    Set,
    /// Objects told apart by the values of these fields.
    Map(Vec<String>),
}

/// Who owns what in an object (`x-kubernetes-map-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Each field has its own owners.
    #[default]
    Granular,
    /// Replaced as a whole, owned as a whole.
    Atomic,
}

/// What a strategic merge patch does with a field (`x-kubernetes-patch-strategy`); by default it replaces lists and
/// merges objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged, by [`Schema::patch_merge_key`] if they hold objects.
    pub merge: bool,
    /// `$retainKeys` is honoured: keys it does not name are dropped.
    pub retain_keys: bool,
}

/// A regular expression together with the text it was written as.
#[derive(Clone)]
pub struct Pattern {
    pub(crate) text: String,
    pub(crate) regex: regex::Regex,
}

impl Pattern {
    /// Compiled size a pattern may reach, in bytes: enough for every pattern in use, small enough for hostile ones.
    const SIZE_LIMIT: usize = 4 << 20;

    /// Compiles `text`; matching takes time linear in pattern and input.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        Self::within(text, Self::SIZE_LIMIT)
    }

    /// Compiles `text` unless that needs more than `size` bytes.
    pub(crate) fn within(text: &str, size: usize) -> Result<Self, regex::Error> {
        let regex = regex::RegexBuilder::new(text).size_limit(size).build()?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// The text it was written as.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether some part of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

/// Value validations: keywords that judge a value without saying what it looks like.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Values allowed; any if empty.
    pub values: Vec<Value>,
    /// What strings must match.
    pub pattern: Option<Pattern>,
    /// Smallest number allowed.
    pub minimum: Option<serde_json::Number>,
    /// The number must be larger than `minimum`, not equal.
    pub exclusive_minimum: bool,
    /// Largest number allowed.
    pub maximum: Option<serde_json::Number>,
    /// The number must be smaller than `maximum`, not equal.
    pub exclusive_maximum: bool,
    /// What numbers must be a multiple of.
    pub multiple_of: Option<serde_json::Number>,
    /// Characters a string must have at least.
    pub min_length: Option<u64>,
    /// Characters a string may have at most.
    pub max_length: Option<u64>,
    /// Items a list must have at least.
    pub min_items: Option<u64>,
    /// Items a list may have at most.
    pub max_items: Option<u64>,
    /// No two items of a list may be equal.
    pub unique_items: bool,
    /// Fields an object must have at least.
    pub min_properties: Option<u64>,
    /// Fields an object may have at most.
    pub max_properties: Option<u64>,
    /// All of these must hold.
    pub all_of: Vec<Schema>,
    /// At least one of these must hold, unless empty.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold, unless empty.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
}

/// A rule of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The CEL expression; true means valid.
    pub rule: String,
    /// What to say if it is false.
    pub message: Option<String>,
    /// CEL expression computing what to say; falls back to `message`.
    pub message_expression: Option<String>,
    /// Reason of the cause; `FieldValueInvalid` by default.
    pub reason: Option<String>,
    /// Field below this one to blame, as a JSONPath of names: `.spec.x`.
    pub field_path: Option<String>,
    /// Evaluate a rule about `oldSelf` on creation too, with an empty optional.
    pub optional_old_self: bool,
    /// `rule`, compiled; none while nobody asked for it.
    pub(crate) program: Option<Program>,
    /// `message_expression`, compiled.
    pub(crate) message_program: Option<Program>,
}

/// What a value looks like. Fields that do not fit the [`Kind`] are empty.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Name of the definition that is meant instead; the other fields of this schema then add to it.
    pub reference: Option<String>,
    /// The JSON type.
    pub kind: Kind,
    /// What is meant, for people; may be empty.
    pub description: String,
    /// `format`: `int32`, `date-time`, `byte`… Unknown ones are kept and mean nothing.
    pub format: Option<String>,
    /// Fields of an object by name.
    pub properties: BTreeMap<String, Schema>,
    /// What all other fields of an object look like; none if there are no others.
    pub additional: Option<Box<Schema>>,
    /// Items of a list.
    pub items: Option<Box<Schema>>,
    /// `null` is a value, not an absence.
    pub nullable: bool,
    /// An integer or a string (`x-kubernetes-int-or-string`).
    pub int_or_string: bool,
    /// Fields not described are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown_fields: bool,
    /// A whole object with apiVersion, kind and metadata (`x-kubernetes-embedded-resource`).
    pub embedded_resource: bool,
    /// Value of the field when it is absent.
    pub default: Option<Value>,
    /// Value validations.
    pub checks: Checks,
    /// CEL rules.
    pub rules: Vec<Rule>,
    /// Ownership of list items.
    pub list_type: ListType,
    /// Ownership of fields.
    pub map_type: MapType,
    /// Field that tells list items apart in a strategic merge patch.
    pub patch_merge_key: Option<String>,
    /// What a strategic merge patch does.
    pub patch_strategy: PatchStrategy,
    /// Group, version and kind this definition is published for, as written (`x-kubernetes-group-version-kind`).
    pub group_version_kind: Option<Value>,
}

impl Schema {
    /// A schema of `kind` and nothing else.
    pub fn of(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// A schema that stands for the definition `name`.
    pub fn refer(name: &str) -> Self {
        Self { reference: Some(name.to_owned()), ..Self::default() }
    }

    /// Anything at all, kept as it is.
    pub fn anything() -> Self {
        Self { preserve_unknown_fields: true, ..Self::default() }
    }

    /// A list of `items`.
    pub fn list(items: Schema) -> Self {
        Self { kind: Kind::Array, items: Some(Box::new(items)), ..Self::default() }
    }

    /// A map from strings to `values`.
    pub fn map(values: Schema) -> Self {
        Self { kind: Kind::Object, additional: Some(Box::new(values)), ..Self::default() }
    }

    /// An object with these fields.
    pub fn object<const N: usize>(fields: [(&str, Schema); N]) -> Self {
        let properties = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        Self { kind: Kind::Object, properties, ..Self::default() }
    }
}
