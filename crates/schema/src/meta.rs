//! Metadata every object has. Built-in kinds describe it themselves; custom resources refer to it here.

use std::collections::BTreeMap;

use crate::model::{Kind, ListType, MapType, PatchStrategy, Schema};

/// Name of the definition of object metadata.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Name of the definition of list metadata.
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const OWNER_REFERENCE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference";
const MANAGED_FIELDS_ENTRY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry";

fn text() -> Schema {
    Schema::of(Kind::String)
}

fn flag() -> Schema {
    Schema::of(Kind::Boolean)
}

fn whole_number() -> Schema {
    Schema { format: Some("int64".to_owned()), ..Schema::of(Kind::Integer) }
}

fn time() -> Schema {
    Schema { format: Some("date-time".to_owned()), ..text() }
}

fn requiring<const N: usize>(mut schema: Schema, fields: [&str; N]) -> Schema {
    schema.checks.required = fields.map(str::to_owned).to_vec();
    schema
}

fn object_meta() -> Schema {
    let merged = PatchStrategy { merge: true, retain_keys: false };
    let finalizers = Schema { list_type: ListType::Set, patch_strategy: merged, ..Schema::list(text()) };
    let owners = Schema {
        list_type: ListType::Map(vec!["uid".to_owned()]),
        patch_merge_key: Some("uid".to_owned()),
        patch_strategy: merged,
        ..Schema::list(Schema::refer(OWNER_REFERENCE))
    };
    Schema::object([
        ("annotations", Schema::map(text())),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", whole_number()),
        ("deletionTimestamp", time()),
        ("finalizers", finalizers),
        ("generateName", text()),
        ("generation", whole_number()),
        ("labels", Schema::map(text())),
        ("managedFields", Schema::list(Schema::refer(MANAGED_FIELDS_ENTRY))),
        ("name", text()),
        ("namespace", text()),
        ("ownerReferences", owners),
        ("resourceVersion", text()),
        ("selfLink", text()),
        ("uid", text()),
    ])
}

fn owner_reference() -> Schema {
    let fields = Schema::object([
        ("apiVersion", text()),
        ("blockOwnerDeletion", flag()),
        ("controller", flag()),
        ("kind", text()),
        ("name", text()),
        ("uid", text()),
    ]);
    Schema { map_type: MapType::Atomic, ..requiring(fields, ["apiVersion", "kind", "name", "uid"]) }
}

fn managed_fields_entry() -> Schema {
    Schema::object([
        ("apiVersion", text()),
        ("fieldsType", text()),
        ("fieldsV1", Schema { kind: Kind::Object, ..Schema::anything() }),
        ("manager", text()),
        ("operation", text()),
        ("subresource", text()),
        ("time", time()),
    ])
}

/// Object metadata and what it is made of, by name.
pub(crate) fn definitions() -> BTreeMap<String, Schema> {
    [(OBJECT_META, object_meta()), (OWNER_REFERENCE, owner_reference()), (MANAGED_FIELDS_ENTRY, managed_fields_entry())]
        .map(|(name, schema)| (name.to_owned(), schema))
        .into()
}
