//! Pieces of definitions that derived schemas cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, ValidationRule,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Any JSON object, kept as it is.
pub(crate) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// An object whose fields nobody here looks at.
pub(crate) fn raw_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// A point in time.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A point in time or nothing.
pub(crate) fn optional_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "nullable": true})
}

/// A number or a percentage.
pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// Conditions, merged by their type.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<crate::Condition>();
    json_schema!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
}

/// Levels that the container engine's configuration understands.
pub(crate) fn log_level(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": crate::kata_config::LOG_LEVELS, "default": "info",
        "description": "Log level of the container engine on the nodes of the pool."})
}

/// The same without a default: absent means untouched.
pub(crate) fn optional_log_level(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": crate::kata_config::LOG_LEVELS})
}

/// What nodes can be told to do after a change.
const ACTIONS: [&str; 6] = ["None", "Drain", "Reload", "Restart", "DaemonReload", "Reboot"];

/// One action of a specification.
pub(crate) fn policy_action(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ACTIONS})
}

/// The same policy as in a specification, with the action only a status names.
pub(crate) fn policy_in_effect(generator: &mut SchemaGenerator) -> Schema {
    fn widen(at: &mut Value) {
        match at {
            Value::Array(items) if *items == ACTIONS => items.push("Special".into()),
            Value::Array(items) => items.iter_mut().for_each(widen),
            Value::Object(fields) => fields.values_mut().for_each(widen),
            _ => {}
        }
    }
    let mut schema = generator.subschema_for::<crate::NodeDisruptionPolicy>();
    schema.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()).for_each(widen);
    schema
}

/// Makes `spec` optional: absent and null both become `{}`, which has defaults for all fields.
pub(crate) fn spec_optional(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for root in roots(&mut crd) {
        if let Some(required) = root.required.take() {
            let rest: Vec<_> = required.into_iter().filter(|field| field != "spec").collect();
            root.required = (!rest.is_empty()).then_some(rest);
        }
        if let Some(spec) = root.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
            spec.default = Some(k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON(json!({})));
        }
    }
    crd
}

/// Adds a CEL rule at a path of property names; `[]` steps into the items of a list.
pub(crate) fn add_rule(crd: &mut CustomResourceDefinition, path: &[&str], rule: &str, message: &str) {
    for root in roots(crd) {
        let rule = ValidationRule { rule: rule.into(), message: Some(message.into()), ..ValidationRule::default() };
        if let Some(at) = descend(root, path) {
            at.x_kubernetes_validations.get_or_insert_default().push(rule);
        }
    }
}

fn roots(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut())
}

fn descend<'a>(at: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray;
    let Some((first, rest)) = path.split_first() else { return Some(at) };
    let next = match *first {
        "[]" => match at.items.as_mut()? {
            JSONSchemaPropsOrArray::Schema(items) => items.as_mut(),
            JSONSchemaPropsOrArray::Schemas(_) => return None,
        },
        name => at.properties.as_mut()?.get_mut(name)?,
    };
    descend(next, rest)
}
