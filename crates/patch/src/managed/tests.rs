use super::*;
use crate::testing::{any_deployment, any_json, deployment, manager, with_spec};
use proptest::prelude::*;
use serde_json::json;

/// The notes of an object in short: who, how, subresource, paths.
fn notes(object: &Value) -> Vec<String> {
    stored(Place::root(deployment()), Some(object))
        .iter()
        .map(|(id, owner)| {
            format!("{:?} {}{} {}", id.operation, id.manager, id.subresource, owner.fields.paths().join(" "))
        })
        .collect()
}

fn written(old: Option<&Value>, mut new: Value, by: &Manager) -> Value {
    track(deployment(), old, &mut new, by);
    new
}

#[test]
fn creation_gives_everything_to_the_creator() {
    let mut object =
        with_spec(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "nodeSelector": {"x": "y"}}));
    object["metadata"] = json!({"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1,
                                "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/", "labels": {"l": "1"}});
    object["status"] = json!({"replicas": 1});
    let object = written(None, object, &manager("kubectl-create", 0));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": "2023-11-14T22:13:20Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
                "f:spec": {".": {}, "f:nodeSelector": {".": {}, "f:x": {}}, "f:replicas": {}, "f:selector": {}},
            },
        }])
    );
}

#[test]
fn what_is_changed_moves_and_what_is_removed_is_forgotten() {
    let first = written(None, with_spec(json!({"replicas": 1, "nodeSelector": {"x": "y"}})), &manager("a", 0));
    // A client that knows nothing of notes sends none.
    let second = written(Some(&first), with_spec(json!({"replicas": 2, "nodeSelector": {"x": "y"}})), &manager("b", 1));
    assert_eq!(notes(&second), ["Update a .spec .spec.nodeSelector .spec.nodeSelector.x", "Update b .spec.replicas"]);
    let third = written(Some(&second), with_spec(json!({"replicas": 2})), &manager("c", 2));
    assert_eq!(notes(&third), ["Update a .spec", "Update b .spec.replicas"]);
    let fourth = written(Some(&third), with_spec(json!({"replicas": 3})), &manager("a", 3));
    assert_eq!(notes(&fourth), ["Update a .spec .spec.replicas"]);
    assert_eq!(fourth["metadata"]["managedFields"][0]["time"], "2023-11-14T22:13:23Z");
}

#[test]
fn the_time_of_others_does_not_move() {
    let first = written(None, with_spec(json!({"replicas": 1, "paused": true})), &manager("a", 0));
    let second = written(Some(&first), with_spec(json!({"replicas": 2, "paused": true})), &manager("b", 5));
    let times: Vec<&Value> =
        second["metadata"]["managedFields"].as_array().unwrap().iter().map(|note| &note["time"]).collect();
    assert_eq!(times, ["2023-11-14T22:13:20Z", "2023-11-14T22:13:25Z"]);
    // A write that changes nothing moves nothing.
    assert_eq!(written(Some(&second), second.clone(), &manager("c", 9)), second);
}

#[test]
fn status_belongs_to_its_subresource() {
    let main = manager("a", 0);
    let status = Manager { subresource: Some("status".to_owned()), ..manager("b", 1) };
    let mut object = with_spec(json!({"replicas": 1}));
    object["status"] = json!({"replicas": 0});
    let first = written(None, object, &main);
    assert_eq!(notes(&first), ["Update a .spec .spec.replicas"]);
    let mut second = first.clone();
    second["status"] = json!({"replicas": 1});
    second["spec"]["replicas"] = json!(7);
    second["metadata"]["managedFields"] = json!([]);
    let second = written(Some(&first), second, &status);
    assert_eq!(notes(&second), ["Update a .spec .spec.replicas", "Update bstatus .status.replicas"]);
    assert_eq!(second["metadata"]["managedFields"][1]["subresource"], "status");
    // Kinds without that subresource have a status like any other field.
    let plain = Manager { status_subresource: false, ..main };
    let mut object = with_spec(json!({}));
    object["status"] = json!({"replicas": 0});
    assert_eq!(notes(&written(None, object, &plain)), ["Update a .spec .status .status.replicas"]);
}

#[test]
fn notes_can_be_edited_and_reset() {
    let first = written(None, with_spec(json!({"replicas": 1})), &manager("a", 0));
    for reset in [json!([]), json!([{}])] {
        let mut second = first.clone();
        second["metadata"]["managedFields"] = reset;
        second["spec"]["replicas"] = json!(2);
        let second = written(Some(&first), second, &manager("b", 1));
        assert_eq!(second["metadata"].get("managedFields"), None);
        // From now on nobody takes notes, until somebody applies.
        let third = written(Some(&second), with_spec(json!({"replicas": 3})), &manager("c", 2));
        assert_eq!(third["metadata"].get("managedFields"), None);
    }
    // The way from client-side to server-side apply: the same fields under another owner.
    let mut edited = first.clone();
    edited["metadata"]["managedFields"][0]["operation"] = json!("Apply");
    edited["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
    let edited = written(Some(&first), edited, &manager("csa-upgrade", 1));
    assert_eq!(notes(&edited), ["Apply kubectl .spec .spec.replicas"]);
}

#[test]
fn notes_that_make_no_sense_are_not_believed() {
    let first = written(None, with_spec(json!({"replicas": 1})), &manager("a", 0));
    let good = first["metadata"]["managedFields"][0].clone();
    for (field, value) in [
        ("operation", json!("Delete")),
        ("operation", json!(null)),
        ("apiVersion", json!("")),
        ("fieldsType", json!("FieldsV2")),
        ("time", json!("yesterday")),
        ("manager", json!(1)),
        ("fieldsV1", json!("x")),
        ("fieldsV1", json!({"k:x": {}})),
    ] {
        let mut second = first.clone();
        second["metadata"]["managedFields"][0][field] = value;
        let second = written(Some(&first), second, &manager("b", 1));
        assert_eq!(second["metadata"]["managedFields"], json!([good]), "{field}");
    }
}

#[test]
fn old_owners_are_merged() {
    let mut object = written(None, with_spec(json!({"nodeSelector": {}})), &manager("m00", 0));
    for n in 1..15 {
        let mut next = object.clone();
        next["spec"]["nodeSelector"][format!("k{n:02}")] = json!("x");
        object = written(Some(&object), next, &manager(&format!("m{n:02}"), n));
    }
    let notes = notes(&object);
    assert_eq!(notes.len(), 10);
    let ancient = ".spec .spec.nodeSelector .spec.nodeSelector.k01 .spec.nodeSelector.k02 .spec.nodeSelector.k03 \
                   .spec.nodeSelector.k04 .spec.nodeSelector.k05";
    assert_eq!(notes[0], format!("Update ancient-changes {ancient}"));
    assert_eq!(notes[1], "Update m06 .spec.nodeSelector.k06");
    assert_eq!(object["metadata"]["managedFields"][0]["time"], "2023-11-14T22:13:25Z");
}

#[test]
fn old_owners_of_different_versions_stay_apart() {
    let mut object = written(None, with_spec(json!({"nodeSelector": {}})), &manager("m00", 0));
    for n in 1..13 {
        let mut next = object.clone();
        next["spec"]["nodeSelector"][format!("k{n:02}")] = json!("x");
        let by = Manager { api_version: format!("apps/v{}", n % 2), ..manager(&format!("m{n:02}"), n) };
        object = written(Some(&object), next, &by);
    }
    const ANCIENT: &str = "ancient-changes";
    let versions: Vec<String> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|note| note["manager"] == ANCIENT)
        .map(|note| note["apiVersion"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(versions, ["apps/v1", "apps/v0"]);
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 10);
}

#[test]
fn notes_are_sorted_appliers_first_then_by_age() {
    let note = |manager: &str, operation: &str, second: i64| {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
               "time": format!("2020-01-01T00:00:{second:02}Z"), "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    };
    let mut object = with_spec(json!({"replicas": 1}));
    object["metadata"]["managedFields"] =
        json!([note("u2", "Update", 1), note("z", "Apply", 5), note("u1", "Update", 1), note("a", "Apply", 9)]);
    let object = written(Some(&object.clone()), object, &manager("x", 0));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([note("z", "Apply", 5), note("a", "Apply", 9), note("u1", "Update", 1), note("u2", "Update", 1)])
    );
}

#[test]
fn lists_are_owned_as_their_schema_says() {
    let object = with_spec(json!({
        "zones": ["a"], "tolerations": [{"key": "k"}], "options": {"x": {"y": [1]}}, "limits": {"cpu": {"max": "1"}},
        "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}],
    }));
    let object = written(None, object, &manager("m", 0));
    assert_eq!(
        notes(&object),
        [[
            "Update m .spec .spec.containers",
            r#".spec.containers[name="a"] .spec.containers[name="a"].image .spec.containers[name="a"].name"#,
            r#".spec.containers[name="a"].ports .spec.containers[name="a"].ports[containerPort=80,protocol="TCP"]"#,
            r#".spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].containerPort"#,
            ".spec.limits .spec.limits.cpu .spec.limits.cpu.max .spec.options .spec.options.x .spec.options.x.y",
            r#".spec.tolerations .spec.zones .spec.zones[="a"]"#,
        ]
        .join(" ")]
    );
    // The order of items is nobody's.
    let two = written(None, with_spec(json!({"zones": ["a", "b"]})), &manager("m", 0));
    let mut swapped = two.clone();
    swapped["spec"]["zones"] = json!(["b", "a"]);
    let swapped = written(Some(&two), swapped, &manager("n", 1));
    assert_eq!(swapped["metadata"]["managedFields"], two["metadata"]["managedFields"]);
}

proptest! {
    #[test]
    fn tracking_no_change_changes_nothing(object in any_deployment()) {
        let object = written(None, object, &manager("a", 0));
        prop_assert_eq!(&written(Some(&object), object.clone(), &manager("b", 1)), &object);
    }

    #[test]
    fn every_change_has_an_owner(old in any_deployment(), new in any_deployment()) {
        let old = written(None, old, &manager("a", 0));
        let by = manager("b", 1);
        let new = written(Some(&old), new, &by);
        let place = Place::root(deployment());
        let owners = stored(place, Some(&new));
        let mut all = Set::default();
        for (_, owner) in owners.iter() {
            all.union(owner.fields.clone());
        }
        prop_assert!(by.ownable(crate::typed::owned(place, &new)).is_subset(&all));
        let own = owners.iter().find(|(id, _)| id.manager == "b").map(|(_, owner)| owner.fields.clone());
        prop_assert_eq!(own.unwrap_or_default(), by.ownable(by.change(place, &old, &new).taken()));
    }

    #[test]
    fn nothing_panics(old in prop::option::of(any_json()), new in any_json()) {
        let once = written(old.as_ref(), new, &manager("a", 0));
        prop_assert_eq!(&written(Some(&once), once.clone(), &manager("b", 1)), &once);
    }
}
