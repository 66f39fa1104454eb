use super::*;
use crate::managed::{stored, track};
use crate::testing::{any_deployment, any_json, deployment, manager, with_spec};
use proptest::prelude::*;

fn applied(live: Option<&Value>, config: &Value, name: &str, second: i64) -> Result<Value, String> {
    apply(deployment(), live, config, &manager(name, second), false).map_err(|error| error.to_string())
}

fn forced(live: &Value, config: &Value, name: &str) -> Value {
    apply(deployment(), Some(live), config, &manager(name, 9), true).unwrap()
}

fn updated(live: &Value, change: impl FnOnce(&mut Value), name: &str) -> Value {
    let mut new = live.clone();
    change(&mut new);
    track(deployment(), Some(live), &mut new, &manager(name, 5));
    new
}

/// What `name` owns by applying.
fn owns(object: &Value, name: &str) -> Vec<String> {
    let owners = stored(Place::root(deployment()), Some(object));
    owners.iter().filter(|(id, _)| id.manager == name).flat_map(|(_, owner)| owner.fields.paths()).collect()
}

#[test]
fn the_first_apply_creates() {
    let config =
        with_spec(json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}], "nodeSelector": {"x": "y"}}));
    let object = applied(None, &config, "kubectl", 0).unwrap();
    assert_eq!(object["spec"], config["spec"]);
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "2023-11-14T22:13:20Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {
                "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}},
                "f:nodeSelector": {"f:x": {}}, "f:replicas": {},
            }},
        }])
    );
}

#[test]
fn applying_again_changes_nothing() {
    let config = with_spec(json!({"replicas": 1, "nodeSelector": {"x": "y"}}));
    let once = applied(None, &config, "a", 0).unwrap();
    assert_eq!(applied(Some(&once), &config, "a", 7).unwrap(), once);
    // The same values from somebody else are shared; only the notes change.
    let shared = applied(Some(&once), &config, "b", 7).unwrap();
    assert_eq!(shared["spec"], once["spec"]);
    assert_eq!(owns(&shared, "a"), owns(&shared, "b"));
    assert_eq!(shared["metadata"]["managedFields"][0]["time"], "2023-11-14T22:13:20Z");
    assert_eq!(shared["metadata"]["managedFields"][1]["time"], "2023-11-14T22:13:27Z");
}

#[test]
fn another_value_is_a_conflict() {
    let live =
        applied(None, &with_spec(json!({"replicas": 1, "containers": [{"name": "nginx", "image": "1"}]})), "a", 0);
    let live = updated(&live.unwrap(), |object| object["spec"]["replicas"] = json!(2), "kubectl");
    assert_eq!(
        applied(Some(&live), &with_spec(json!({"replicas": 3})), "b", 1),
        Err(r#"Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas"#.to_owned())
    );
    let config = with_spec(json!({"replicas": 3, "containers": [{"name": "nginx", "image": "2"}]}));
    let Err(ApplyError::Conflicts(conflicts)) = apply(deployment(), Some(&live), &config, &manager("b", 1), false)
    else {
        panic!("no conflict");
    };
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.containers[name=\"nginx\"].image\n\
         conflicts with \"kubectl\" using apps/v1:\n- .spec.replicas"
    );
    let causes: Vec<(&str, String, String)> =
        conflicts.causes().into_iter().map(|cause| (cause.reason, cause.message, cause.field)).collect();
    assert_eq!(
        causes,
        [
            ("FieldManagerConflict", "conflict with \"a\"".into(), ".spec.containers[name=\"nginx\"].image".into()),
            ("FieldManagerConflict", "conflict with \"kubectl\" using apps/v1".into(), ".spec.replicas".into()),
        ]
    );
    let taken = forced(&live, &config, "b");
    assert_eq!(taken["spec"], json!({"replicas": 3, "containers": [{"name": "nginx", "image": "2"}]}));
    assert_eq!(owns(&taken, "kubectl"), [""; 0]);
    assert_eq!(owns(&taken, "a"), [r#".spec.containers[name="nginx"]"#, r#".spec.containers[name="nginx"].name"#]);
}

#[test]
fn owners_through_a_subresource_are_named_with_it() {
    let live = applied(None, &with_spec(json!({"replicas": 1})), "a", 0).unwrap();
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(2);
    let scale = Manager { subresource: Some("scale".to_owned()), ..manager("hpa", 1) };
    track(deployment(), Some(&live), &mut scaled, &scale);
    let error = applied(Some(&scaled), &with_spec(json!({"replicas": 3})), "a", 2).unwrap_err();
    assert_eq!(
        error,
        r#"Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas"#
    );
}

#[test]
fn what_is_dropped_is_removed_unless_others_own_it() {
    // first applied by a, then what is done to it, then applied by a, what remains
    type Change = fn(&mut Value);
    let nothing: Change = |_| {};
    for (first, change, second, want) in [
        (json!({"replicas": 1, "paused": true}), nothing, json!({"replicas": 1}), json!({"replicas": 1})),
        (
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            nothing,
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"a": "1"}}),
        ),
        (json!({"nodeSelector": {"a": "1"}, "replicas": 1}), nothing, json!({"replicas": 1}), json!({"replicas": 1})),
        // Others own a part.
        (
            json!({"nodeSelector": {"a": "1"}, "replicas": 1}),
            |o| o["spec"]["nodeSelector"]["b"] = json!("2"),
            json!({"replicas": 1}),
            json!({"nodeSelector": {"b": "2"}, "replicas": 1}),
        ),
        (
            json!({"strategy": {"type": "X"}, "replicas": 1}),
            |o| o["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 1}),
            json!({"replicas": 1}),
            json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}, "replicas": 1}),
        ),
        // Somebody changed it since: it is theirs.
        (
            json!({"replicas": 1, "paused": true}),
            |o| o["spec"]["replicas"] = json!(2),
            json!({"paused": true}),
            json!({"replicas": 2, "paused": true}),
        ),
        // Items go away with all their content, even if others own a part, but not the item.
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            |o| o["spec"]["containers"][1]["image"] = json!("i"),
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            |o| o["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]),
            json!({"containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "b"}, {"name": "c"}]}),
        ),
        (json!({"zones": ["a", "b"]}), nothing, json!({"zones": ["b", "c"]}), json!({"zones": ["b", "c"]})),
        (
            json!({"zones": ["a", "b"]}),
            |o| o["spec"]["zones"] = json!(["a", "b", "s"]),
            json!({"zones": ["c"]}),
            json!({"zones": ["s", "c"]}),
        ),
        (
            json!({"tolerations": [{"key": "a"}], "replicas": 1}),
            nothing,
            json!({"replicas": 1}),
            json!({"replicas": 1}),
        ),
        (
            json!({"options": {"a": {"b": 1, "c": [1]}}}),
            nothing,
            json!({"options": {"a": {"b": 1}}}),
            json!({"options": {"a": {"b": 1}}}),
        ),
        (
            json!({"limits": {"cpu": {"max": "1"}, "mem": {}}}),
            nothing,
            json!({"limits": {"mem": {}}}),
            json!({"limits": {"mem": {}}}),
        ),
    ] {
        let live = applied(None, &with_spec(first.clone()), "a", 0).unwrap();
        let live = updated(&live, change, "other");
        let object = applied(Some(&live), &with_spec(second.clone()), "a", 6).unwrap();
        assert_eq!(object["spec"], want, "{first}, then {}, then {second}", live["spec"]);
    }
}

#[test]
fn metadata_stays_when_the_last_label_goes() {
    let config = |labels: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": labels}, "spec": {"replicas": 1}})
    };
    let mut live = applied(None, &config(json!({"a": "b"})), "a", 0).unwrap();
    live["metadata"]["uid"] = json!("u");
    let mut without = config(json!(null));
    without["metadata"].as_object_mut().unwrap().remove("labels");
    let now = applied(Some(&live), &without, "a", 1).unwrap();
    let left: Vec<_> = now["metadata"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(left, ["managedFields", "name", "namespace", "uid"]);
}

#[test]
fn shared_fields_stay_until_the_last_owner_drops_them() {
    let both = with_spec(json!({"replicas": 1, "paused": true}));
    let one = with_spec(json!({"paused": true}));
    let live = applied(None, &both, "a", 0).unwrap();
    let live = applied(Some(&live), &both, "b", 1).unwrap();
    let live = applied(Some(&live), &one, "a", 2).unwrap();
    assert_eq!(live["spec"], both["spec"]);
    let live = applied(Some(&live), &one, "b", 3).unwrap();
    assert_eq!(live["spec"], one["spec"]);
}

#[test]
fn whole_lists_and_objects_conflict_as_a_whole() {
    let live = with_spec(json!({"selector": {"matchLabels": {"a": "1"}}, "tolerations": [{"key": "a"}]}));
    let live = applied(None, &live, "a", 0).unwrap();
    for (config, field) in [
        (json!({"selector": {"matchLabels": {"a": "1", "b": "2"}}}), ".spec.selector"),
        (json!({"tolerations": [{"key": "a"}, {"key": "b"}]}), ".spec.tolerations"),
    ] {
        let error = applied(Some(&live), &with_spec(config.clone()), "b", 1).unwrap_err();
        assert_eq!(error, format!("Apply failed with 1 conflict: conflict with \"a\": {field}"));
        let taken = forced(&live, &with_spec(config.clone()), "b");
        assert_eq!(taken.pointer(&field.replace('.', "/")), config.pointer(&field.replace(".spec.", "/")));
    }
}

#[test]
fn a_value_of_another_kind_conflicts_with_what_it_replaces() {
    let live = applied(None, &with_spec(json!({"options": {"a": {"b": 1}}})), "a", 0).unwrap();
    let config = with_spec(json!({"options": {"a": 5}}));
    assert_eq!(
        applied(Some(&live), &config, "b", 1),
        Err("Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.options.a\n- .spec.options.a.b".to_owned())
    );
    let taken = forced(&live, &config, "b");
    assert_eq!(taken["spec"], config["spec"]);
    assert_eq!(owns(&taken, "a"), [""; 0]);
    assert_eq!(owns(&taken, "b"), [".spec.options.a"]);
}

#[test]
fn items_are_merged_in_the_order_applied() {
    let containers = |names: &str| -> Value { names.chars().map(|name| json!({"name": name.to_string()})).collect() };
    for (live, config, want) in [
        ("ab", "ab", "ab"),
        ("ab", "ba", "ba"),
        ("axb", "ba", "xba"),
        ("ab", "ca", "cab"),
        ("xa", "ca", "xca"),
        ("a", "ab", "ab"),
        ("axbyc", "cba", "xycba"),
        ("abx", "", "abx"),
    ] {
        let live = applied(None, &with_spec(json!({"containers": containers(live)})), "other", 0).unwrap();
        let object = applied(Some(&live), &with_spec(json!({"containers": containers(config)})), "a", 1).unwrap();
        assert_eq!(object["spec"]["containers"], containers(want), "{config} over {}", live["spec"]);
    }
}

#[test]
fn items_are_told_apart_by_all_keys_and_their_defaults() {
    let ports = |ports: Value| with_spec(json!({"containers": [{"name": "a", "ports": ports}]}));
    let config = ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]));
    let live = applied(None, &config, "a", 0).unwrap();
    // Defaults are filled in after the apply.
    let live = updated(&live, |o| o["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP"), "server");
    let object = applied(Some(&live), &config, "a", 1).unwrap();
    assert_eq!(object["spec"], live["spec"]);
    for (config, want) in [
        (
            ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "TCP"}])),
            r#".spec.containers[name="a"].ports: duplicate entries for key [containerPort=53,protocol="TCP"]"#,
        ),
        (with_spec(json!({"zones": ["a", "a"]})), r#".spec.zones: duplicate entries for key [="a"]"#),
        (
            with_spec(json!({"containers": [{"image": "x"}]})),
            ".spec.containers: element 0: an item of this list is told apart by name: give it one",
        ),
        (
            with_spec(json!({"containers": ["x"]})),
            ".spec.containers: element 0: an item of this list is told apart by name: give it one",
        ),
    ] {
        let error = applied(None, &config, "a", 0).unwrap_err();
        assert_eq!(error, format!("failed to create typed patch object: {want}"));
    }
}

#[test]
fn null_is_not_a_value_unless_the_schema_says_so() {
    let live = applied(None, &with_spec(json!({"replicas": 1})), "a", 0).unwrap();
    let mut config = with_spec(json!({"replicas": null, "paused": null}));
    config["metadata"]["creationTimestamp"] = json!(null);
    let object = applied(Some(&live), &config, "b", 1).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 1, "paused": null}));
    assert_eq!(object["metadata"].get("creationTimestamp"), None);
    assert_eq!(owns(&object, "b"), [".spec.paused"]);
}

#[test]
fn objects_without_notes_belong_to_somebody_else() {
    let live = with_spec(json!({"replicas": 1, "paused": true}));
    let error = applied(Some(&live), &with_spec(json!({"replicas": 2})), "a", 0).unwrap_err();
    assert_eq!(
        error,
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using apps/v1: .spec.replicas"#
    );
    let object = applied(Some(&live), &with_spec(json!({"replicas": 1})), "a", 0).unwrap();
    assert_eq!(owns(&object, "before-first-apply"), [".spec", ".spec.paused", ".spec.replicas"]);
    assert_eq!(owns(&object, "a"), [".spec.replicas"]);
}

#[test]
fn kubectl_takes_over_from_its_client_side_self() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let config = with_spec(json!({"replicas": 1, "paused": true}));
    let mut live = config.clone();
    live["metadata"]["annotations"] = json!({LAST: config.to_string()});
    track(deployment(), None, &mut live, &manager("kubectl-client-side-apply", 0));

    let next = with_spec(json!({"replicas": 2, "paused": true}));
    let object = applied(Some(&live), &next, "kubectl", 1).unwrap();
    assert_eq!(object["spec"], next["spec"]);
    let last = object["metadata"]["annotations"][LAST].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap(), next);
    // Anybody else has to force.
    assert!(applied(Some(&live), &next, "argo", 1).is_err());
    // What somebody changed since is theirs.
    let live = updated(&live, |object| object["spec"]["replicas"] = json!(5), "other");
    let error = applied(Some(&live), &with_spec(json!({"replicas": 2, "paused": false})), "kubectl", 1).unwrap_err();
    assert_eq!(error, r#"Apply failed with 1 conflict: conflict with "other" using apps/v1: .spec.replicas"#);
}

#[test]
fn identity_and_status_are_never_owned() {
    let mut config = with_spec(json!({"replicas": 1}));
    config["metadata"] =
        json!({"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"}});
    config["status"] = json!({"replicas": 1});
    let object = applied(None, &config, "a", 0).unwrap();
    assert_eq!(owns(&object, "a"), [".metadata.labels.a", ".spec.replicas"]);
    let status = Manager { subresource: Some("status".to_owned()), ..manager("s", 1) };
    let object = apply(deployment(), Some(&object), &config, &status, false).unwrap();
    assert_eq!(owns(&object, "s"), [".status.replicas"]);
    // An apply that says nothing owns nothing.
    let object =
        applied(None, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}), "a", 0);
    assert_eq!(object.unwrap()["metadata"], json!({"name": "d"}));
}

#[test]
fn owners_are_never_applied() {
    for (notes, fine) in [(json!([]), true), (json!(null), true), (json!([{}]), false), (json!("x"), false)] {
        let mut config = with_spec(json!({"replicas": 1}));
        config["metadata"]["managedFields"] = notes;
        let outcome = apply(deployment(), None, &config, &manager("a", 0), false);
        assert_eq!(!matches!(outcome, Err(ApplyError::ManagedFields)), fine, "{config}");
    }
    assert!(matches!(apply(deployment(), None, &json!([]), &manager("a", 0), false), Err(ApplyError::NotAnObject)));
    let deep = (0..200).fold(json!({}), |inner, _| json!({"options": inner}));
    assert!(matches!(apply(deployment(), None, &deep, &manager("a", 0), false), Err(ApplyError::TooDeep)));
}

#[test]
fn the_deepest_object_can_be_read_again() {
    let deep = (0..120).fold(json!({}), |inner, _| json!({"a": inner}));
    let object = applied(None, &with_spec(json!({"options": deep})), "a", 0).unwrap();
    assert!(within_depth(&object));
    assert_eq!(serde_json::from_str::<Value>(&object.to_string()).unwrap(), object);
    assert_eq!(applied(Some(&object), &with_spec(json!({"options": deep})), "a", 5).unwrap(), object);
}

#[test]
fn who_owned_a_part_of_what_is_now_whole_owns_it() {
    let mut live = with_spec(json!({"selector": {"matchLabels": {"a": "1"}}}));
    live["metadata"]["managedFields"] = json!([{
        "manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:selector": {"f:matchLabels": {"f:a": {}}}}},
    }]);
    let config = with_spec(json!({"selector": {"matchLabels": {"a": "2"}}}));
    assert!(applied(Some(&live), &config, "b", 1).unwrap_err().ends_with("conflict with \"a\": .spec.selector"));
    assert_eq!(applied(Some(&live), &config, "a", 1).unwrap()["spec"], config["spec"]);
}

proptest! {
    #[test]
    fn the_second_apply_is_a_no_op(live in prop::option::of(any_deployment()), config in any_deployment()) {
        let once = apply(deployment(), live.as_ref(), &config, &manager("a", 0), true).unwrap();
        let twice = apply(deployment(), Some(&once), &config, &manager("a", 5), false).unwrap();
        prop_assert_eq!(&twice, &once);
    }

    #[test]
    fn what_one_applies_alone_is_all_there_is(first in any_deployment(), second in any_deployment()) {
        let live = apply(deployment(), None, &first, &manager("a", 0), false).unwrap();
        let live = apply(deployment(), Some(&live), &second, &manager("a", 1), false).unwrap();
        let fresh = apply(deployment(), None, &second, &manager("a", 1), false).unwrap();
        let place = Place::root(deployment()).field("spec");
        prop_assert_eq!(typed::owned(place, &live["spec"]), typed::owned(place, &fresh["spec"]));
        prop_assert_eq!(owns(&live, "a"), owns(&fresh, "a"));
    }

    #[test]
    fn nobody_loses_a_field_without_force(first in any_deployment(), second in any_deployment()) {
        let live = apply(deployment(), None, &first, &manager("a", 0), false).unwrap();
        if let Ok(object) = apply(deployment(), Some(&live), &second, &manager("b", 1), false) {
            prop_assert_eq!(owns(&object, "a"), owns(&live, "a"));
        }
    }

    #[test]
    fn nothing_panics(live in prop::option::of(any_json()), config in any_json()) {
        if let Ok(once) = apply(deployment(), live.as_ref(), &config, &manager("a", 0), true) {
            let _ = apply(deployment(), Some(&once), &config, &manager("b", 1), false);
        }
    }
}

/// Prints how long an object of 100 kB takes; run with `--nocapture`.
#[test]
fn a_large_object_is_applied_and_tracked() {
    let containers: Value = (0..400)
        .map(|n| {
            json!({"name": format!("container-{n}"), "image": format!("registry.example/image-{n}:1"),
                   "env": (0..4).map(|k| json!({"name": format!("KEY_{k}"), "value": "some value"})).collect::<Value>(),
                   "ports": [{"containerPort": n, "protocol": "TCP"}]})
        })
        .collect();
    let config = with_spec(json!({"containers": containers}));
    let live = applied(None, &config, "a", 0).unwrap();
    let mut next = config.clone();
    next["spec"]["containers"][7]["image"] = json!("other");

    let best = |times: [std::time::Duration; 5]| times.into_iter().min().unwrap_or_default();
    let mut object = live.clone();
    let apply = best(std::array::from_fn(|_| {
        let start = std::time::Instant::now();
        object = applied(Some(&live), &next, "a", 1).unwrap();
        start.elapsed()
    }));
    let live = object;
    let mut next = live.clone();
    next["spec"]["containers"][8]["image"] = json!("other");
    let mut object = next.clone();
    let track = best(std::array::from_fn(|_| {
        object = next.clone();
        let start = std::time::Instant::now();
        track(deployment(), Some(&live), &mut object, &manager("b", 5));
        start.elapsed()
    }));
    println!("{} bytes: apply {apply:?}, track {track:?}", config.to_string().len());
    assert_eq!(owns(&object, "b"), [r#".spec.containers[name="container-8"].image"#]);
}
