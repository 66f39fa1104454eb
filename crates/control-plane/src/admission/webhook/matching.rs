//! Whether a webhook is asked about a request.

use osc_api::status::Status;
use osc_schema::cel::Expression;
use serde_json::{Map, Value};

use super::hook::{Condition, Hook, Rule};
use crate::{admission::Attributes, reader::Reader};

/// What selectors look at besides the object.
#[derive(Default)]
pub(super) struct Context {
    /// Labels of the object's namespace; none for cluster-scoped kinds.
    namespace: Option<Map<String, Value>>,
}

impl Context {
    pub fn read(reader: &Reader, attributes: &Attributes<'_>) -> Result<Self, Status> {
        if !attributes.resource.namespaced || attributes.namespace.is_empty() {
            return Ok(Self { namespace: None });
        }
        let namespace = reader.get("", "namespaces", "", attributes.namespace)?.unwrap_or_default();
        Ok(Self { namespace: Some(labels(&namespace)) })
    }
}

fn labels(object: &Value) -> Map<String, Value> {
    object["metadata"]["labels"].as_object().cloned().unwrap_or_default()
}

/// Whether one of the rules is about this request.
pub(super) fn rules(rules: &[Rule], attributes: &Attributes<'_>) -> bool {
    rules.iter().any(|rule| rule.matches(attributes))
}

impl Rule {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|own| own == "*" || own == wanted);
        let resource = attributes.resource;
        let in_scope = match self.scope.as_deref() {
            Some("Namespaced") => resource.namespaced,
            Some("Cluster") => !resource.namespaced,
            _ => true,
        };
        in_scope
            && has(&self.operations, attributes.operation.as_str())
            && has(&self.api_groups, &resource.group)
            && has(&self.api_versions, &resource.version)
            && self.resources.iter().any(|pattern| {
                let (plural, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
                (plural == "*" || plural == resource.plural)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
    }
}

/// Whether both selectors of a hook let the request through.
pub(super) fn selectors(
    hook: &Hook,
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<bool, Status> {
    let namespaces = hook.namespaces()?;
    let in_namespace = match &context.namespace {
        Some(labels) => namespaces.matches(labels),
        // A namespace is looked at as if it were in itself; other cluster-scoped objects are in none.
        None if attributes.resource.is("", "namespaces") => {
            let own = if object.is_null() { old.unwrap_or(object) } else { object };
            namespaces.matches(&labels(own))
        }
        None => true,
    };
    let objects = hook.objects()?;
    let selected = |object: &Value| !object.is_null() && objects.matches_object(object);
    Ok(in_namespace && (objects.is_everything() || selected(object) || old.is_some_and(selected)))
}

/// A condition that gives no answer.
#[derive(Debug, thiserror::Error)]
#[error("match condition {name:?}: {why}")]
pub(super) struct BadCondition {
    name: String,
    why: String,
}

/// Whether all conditions hold. One that does not settles it, even where another gives no answer.
pub(super) fn conditions(conditions: &[Condition], request: &Value) -> Result<bool, BadCondition> {
    let mut bad = None;
    for condition in conditions {
        match holds(condition, request) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => bad = bad.or(Some(BadCondition { name: condition.name.clone(), why })),
        }
    }
    bad.map_or(Ok(true), Err)
}

fn holds(condition: &Condition, request: &Value) -> Result<bool, String> {
    let variables = [("object", &request["object"]), ("oldObject", &request["oldObject"]), ("request", request)];
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    let expression = Expression::compile(&condition.expression, &names).map_err(|error| error.to_string())?;
    expression.evaluate_bool(&variables).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{
        Operation,
        testing::{World, namespace, pod, resource},
    };
    use serde_json::json;

    fn rule(operations: &[&str], groups: &[&str], resources: &[&str], scope: &str) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rule {
            operations: owned(operations),
            api_groups: owned(groups),
            api_versions: vec!["v1".into()],
            resources: owned(resources),
            scope: Some(scope.into()),
        }
    }

    #[tokio::test]
    async fn rules_name_requests() {
        let world = World::with(&[]).await;
        let object = pod();
        let (create, update, connect) = (Operation::Create, Operation::Update, Operation::Connect);
        let rows = [
            (rule(&["CREATE"], &[""], &["pods"], "*"), create, "pods", "", true),
            (rule(&["CREATE"], &[""], &["pods"], "*"), update, "pods", "", false),
            (rule(&["*"], &["*"], &["*"], "*"), update, "pods", "", true),
            (rule(&["*"], &["*"], &["*"], "*"), connect, "pods", "exec", false),
            (rule(&["*"], &["*"], &["*/*"], "*"), connect, "pods", "exec", true),
            (rule(&["*"], &["*"], &["*/*"], "*"), create, "nodes", "", true),
            (rule(&["*"], &[""], &["pods/*"], "*"), connect, "pods", "exec", true),
            (rule(&["*"], &[""], &["pods/exec"], "*"), connect, "pods", "attach", false),
            (rule(&["*"], &[""], &["*/exec"], "*"), connect, "pods", "exec", true),
            (rule(&["*"], &["apps"], &["*"], "*"), create, "pods", "", false),
            (rule(&["*"], &["apps"], &["deployments"], "*"), create, "apps/deployments", "", true),
            (rule(&["*"], &[""], &["*"], "Cluster"), create, "pods", "", false),
            (rule(&["*"], &[""], &["*"], "Cluster"), create, "namespaces", "", true),
            (rule(&["*"], &[""], &["*"], "Namespaced"), create, "namespaces", "", false),
            (rule(&["*"], &[""], &["*"], "Namespaced"), create, "pods", "", true),
            (Rule { api_versions: vec!["v2".into()], ..rule(&["*"], &[""], &["*"], "*") }, create, "pods", "", false),
            (Rule::default(), create, "pods", "", false),
        ];
        for (rule, operation, kind, subresource, want) in rows {
            let asked = world.asks(operation, kind, &object);
            let attributes = Attributes { subresource, resource: resource(kind), ..asked };
            assert_eq!(rules(std::slice::from_ref(&rule), &attributes), want, "{rule:?} {operation:?} {kind}");
        }
    }

    fn labelled(mut object: Value, labels: Value) -> Value {
        object["metadata"]["labels"] = labels;
        object
    }

    #[tokio::test]
    async fn selectors_look_at_namespace_and_object() {
        let home = labelled(namespace("home", "Active"), json!({ "team": "x" }));
        let world = World::with(std::slice::from_ref(&home)).await;
        let mut own = labelled(pod(), json!({ "app": "a" }));
        own["metadata"]["namespace"] = json!("home");
        let other = labelled(own.clone(), json!({ "app": "b" }));
        let node = json!({ "metadata": { "name": "n" } });
        let (team_x, team_y) = (json!({ "matchLabels": { "team": "x" } }), json!({ "matchLabels": { "team": "y" } }));
        let app_a = json!({ "matchLabels": { "app": "a" } });
        let not_a = json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["a"] }] });
        let (none, null) = (json!({}), Value::Null);
        let rows = [
            ("pods", &own, None, &none, &none, true),
            ("pods", &own, None, &null, &null, true),
            ("pods", &own, None, &team_x, &none, true),
            ("pods", &own, None, &team_y, &none, false),
            ("pods", &own, None, &none, &app_a, true),
            ("pods", &other, None, &none, &app_a, false),
            ("pods", &other, Some(&own), &none, &app_a, true),
            ("pods", &null, Some(&own), &none, &app_a, true),
            ("pods", &null, None, &none, &app_a, false),
            ("pods", &null, None, &none, &not_a, false),
            ("pods", &null, None, &none, &none, true),
            ("namespaces", &home, None, &team_x, &none, true),
            ("namespaces", &home, None, &team_y, &none, false),
            ("namespaces", &null, Some(&home), &team_y, &none, false),
            ("nodes", &node, None, &team_y, &none, true),
        ];
        for (kind, object, old, namespaces, objects, want) in rows {
            let mut attributes = world.asks(Operation::Update, kind, object);
            if kind == "pods" {
                attributes.namespace = "home";
            }
            let hook =
                json!({ "name": "h", "clientConfig": {}, "namespaceSelector": namespaces, "objectSelector": objects });
            let hook: Hook = serde_json::from_value(hook).unwrap();
            let context = Context::read(&world.reader, &attributes).unwrap();
            let seen = selectors(&hook, &context, &attributes, object, old).unwrap();
            assert_eq!(seen, want, "{kind} {object} {old:?} {namespaces} {objects}");
        }
    }

    #[test]
    fn conditions_must_all_hold() {
        let request = json!({
            "operation": "UPDATE", "userInfo": { "username": "jane", "groups": ["dev"] },
            "object": { "metadata": { "name": "a", "labels": { "x": "1" } } }, "oldObject": null,
        });
        let rows: [(&[&str], Option<bool>); 9] = [
            (&[], Some(true)),
            (&["object.metadata.name == 'a'"], Some(true)),
            (&["object.metadata.name == 'a'", "request.userInfo.username == 'bob'"], Some(false)),
            (&["'dev' in request.userInfo.groups && oldObject == null"], Some(true)),
            (&["has(object.metadata.labels.x)"], Some(true)),
            (&["object.absent.field == 1"], None),
            (&["object.absent.field == 1", "false"], Some(false)),
            (&["'text'"], None),
            (&["authorizer.group('').check('get').allowed()"], None),
        ];
        for (expressions, want) in rows {
            let list: Vec<_> = expressions
                .iter()
                .map(|expression| Condition { name: "c".into(), expression: (*expression).into() })
                .collect();
            assert_eq!(conditions(&list, &request).ok(), want, "{expressions:?}");
        }
    }
}
