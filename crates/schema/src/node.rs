//! Walking schemas: definitions by name, and the cursor that follows them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::meta;
use crate::model::{Kind, ListType, MapType, PatchStrategy, Schema};
use crate::parse::{self, ParseError};

/// Schemas by name. References are looked up here while walking, so definitions may contain themselves.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    by_name: BTreeMap<String, Schema>,
}

/// What references of custom resources can mean: object metadata.
static METADATA: LazyLock<Definitions> = LazyLock::new(|| Definitions { by_name: meta::definitions() });

impl Definitions {
    /// Reads `components.schemas` of an OpenAPI v3 document.
    pub fn from_openapi(schemas: &Map<String, Value>) -> Result<Self, ParseError> {
        let by_name = schemas
            .iter()
            .map(|(name, value)| Ok((name.clone(), parse::definition(name, value)?)))
            .collect::<Result<_, ParseError>>()?;
        Ok(Self { by_name })
    }

    /// The definitions every schema may refer to: [`crate::OBJECT_META`] and what it is made of.
    pub fn metadata() -> &'static Self {
        &METADATA
    }

    /// The schema called `name`.
    pub fn get(&self, name: &str) -> Option<&Schema> {
        self.by_name.get(name)
    }

    /// The schema called `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Schema> {
        self.by_name.get_mut(name)
    }

    /// Adds or replaces the schema called `name`.
    pub fn insert(&mut self, name: &str, schema: Schema) {
        self.by_name.insert(name.to_owned(), schema);
    }

    /// All names with their schemas, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Schema)> {
        self.by_name.iter().map(|(name, schema)| (name.as_str(), schema))
    }

    /// Cursor at the schema called `name`.
    pub fn node(&self, name: &str) -> Option<Node<'_>> {
        self.get(name).map(|schema| Node::new(schema, self))
    }
}

/// Name of the definition of quantities.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// A cursor into a schema: where references have been followed and siblings of a reference are not forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// The schema as written at the place where it is used.
    site: &'a Schema,
    /// The schema it stands for; the same unless `site` is a reference.
    schema: &'a Schema,
    definitions: &'a Definitions,
}

impl<'a> Node<'a> {
    /// References in a row that are followed; real ones need one.
    const MAX_HOPS: usize = 8;

    /// Cursor at `site`; references are looked up in `definitions`. One that is not there means anything.
    pub fn new(site: &'a Schema, definitions: &'a Definitions) -> Self {
        static ANYTHING: LazyLock<Schema> = LazyLock::new(Schema::anything);
        let mut schema = site;
        let mut hops = 0;
        while let Some(name) = &schema.reference {
            schema = match definitions.get(name) {
                Some(next) if hops < Self::MAX_HOPS => next,
                _ => &ANYTHING,
            };
            hops += 1;
        }
        Self { site, schema, definitions }
    }

    /// Cursor at the schema of a custom resource, which refers to nothing but object metadata.
    pub fn custom(schema: &'a Schema) -> Self {
        Self::new(schema, Definitions::metadata())
    }

    /// The schema, references followed.
    pub fn schema(self) -> &'a Schema {
        self.schema
    }

    /// The schema as written where it is used: a reference with siblings, or the same as [`Self::schema`].
    pub fn site(self) -> &'a Schema {
        self.site
    }

    /// Whether the place where the schema is used adds to it.
    pub(crate) fn has_site(self) -> bool {
        !std::ptr::eq(self.site, self.schema)
    }

    /// The definitions references are looked up in.
    pub fn definitions(self) -> &'a Definitions {
        self.definitions
    }

    fn at(self, schema: &'a Schema) -> Self {
        Self::new(schema, self.definitions)
    }

    /// The JSON type.
    pub fn kind(self) -> Kind {
        self.schema.kind
    }

    /// The described field `name`, not regarding [`Self::additional`].
    pub fn property(self, name: &str) -> Option<Self> {
        self.schema.properties.get(name).map(|schema| self.at(schema))
    }

    /// What the field `name` looks like: described by itself, or like all additional ones.
    pub fn field(self, name: &str) -> Option<Self> {
        self.property(name).or_else(|| self.additional())
    }

    /// All described fields by name.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.schema.properties.iter().map(move |(name, schema)| (name.as_str(), self.at(schema)))
    }

    /// What fields not described look like.
    pub fn additional(self) -> Option<Self> {
        self.schema.additional.as_deref().map(|schema| self.at(schema))
    }

    /// What items of the list look like.
    pub fn items(self) -> Option<Self> {
        self.schema.items.as_deref().map(|schema| self.at(schema))
    }

    /// What is meant here, for people.
    pub fn description(self) -> &'a str {
        if self.site.description.is_empty() { &self.schema.description } else { &self.site.description }
    }

    /// Value of the field when it is absent.
    pub fn default(self) -> Option<&'a Value> {
        self.site.default.as_ref().or(self.schema.default.as_ref())
    }

    /// Whether `null` is a value here.
    pub fn nullable(self) -> bool {
        self.site.nullable || self.schema.nullable
    }

    /// Whether fields not described are kept as they are.
    pub fn preserves_unknown_fields(self) -> bool {
        self.site.preserve_unknown_fields || self.schema.preserve_unknown_fields
    }

    /// Whether this is an integer or a string.
    pub fn int_or_string(self) -> bool {
        self.schema.int_or_string
    }

    /// Whether this is a quantity (`500m`, `1Gi`), which may also be written as any number.
    pub fn is_quantity(self) -> bool {
        self.site.reference.as_deref() == Some(QUANTITY)
    }

    /// Ownership of list items.
    pub fn list_type(self) -> &'a ListType {
        match &self.site.list_type {
            ListType::Atomic => &self.schema.list_type,
            other => other,
        }
    }

    /// Ownership of fields.
    pub fn map_type(self) -> MapType {
        match self.site.map_type {
            MapType::Granular => self.schema.map_type,
            MapType::Atomic => MapType::Atomic,
        }
    }

    /// Field that tells list items apart in a strategic merge patch.
    pub fn patch_merge_key(self) -> Option<&'a str> {
        self.site.patch_merge_key.as_deref().or(self.schema.patch_merge_key.as_deref())
    }

    /// What a strategic merge patch does here.
    pub fn patch_strategy(self) -> PatchStrategy {
        if self.site.patch_strategy == PatchStrategy::default() {
            self.schema.patch_strategy
        } else {
            self.site.patch_strategy
        }
    }
}
