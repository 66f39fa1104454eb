use super::*;
use crate::PatchErrorKind;
use crate::testing::{any_json, deployment};
use proptest::prelude::*;
use serde_json::json;

fn patched(spec: Value, patch: Value) -> Result<Value, PatchErrorKind> {
    strategic(deployment(), &json!({"spec": spec}), &json!({"spec": patch}))
        .map(|object| object["spec"].clone())
        .map_err(|error| error.kind())
}

fn check(cases: impl IntoIterator<Item = (Value, Value, Value)>) {
    for (spec, patch, want) in cases {
        assert_eq!(patched(spec.clone(), patch.clone()), Ok(want), "{spec} patched with {patch}");
    }
}

#[test]
fn objects_merge_and_null_removes() {
    check([
        (json!({"replicas": 1}), json!({"replicas": 2}), json!({"replicas": 2})),
        (json!({"replicas": 1}), json!({"replicas": null}), json!({})),
        (json!({}), json!({"replicas": null}), json!({})),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"b": "2"}}),
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
        ),
        (json!({"nodeSelector": {"a": "1"}}), json!({"nodeSelector": {"a": null}}), json!({"nodeSelector": {}})),
        (json!({}), json!({"nodeSelector": {"a": null, "b": "2"}}), json!({"nodeSelector": {"b": "2"}})),
        (json!({"nodeSelector": "odd"}), json!({"nodeSelector": {"b": "2"}}), json!({"nodeSelector": {"b": "2"}})),
        (
            json!({"options": {"a": {"b": 1}}}),
            json!({"options": {"a": {"c": 2}}}),
            json!({"options": {"a": {"b": 1, "c": 2}}}),
        ),
    ]);
}

#[test]
fn lists_without_merge_key_are_replaced() {
    check([
        (
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
        (
            json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
            json!({"containers": [{"name": "a", "args": ["z"]}]}),
            json!({"containers": [{"name": "a", "args": ["z"]}]}),
        ),
        (json!({"options": [1, 2]}), json!({"options": [3]}), json!({"options": [3]})),
        (json!({"nobody": [1, 2]}), json!({"nobody": [3]}), json!({"nobody": [3]})),
    ]);
}

#[test]
fn lists_merge_by_their_key() {
    let ab = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
    check([
        (
            ab.clone(),
            json!({"containers": [{"name": "b", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        ),
        // What is new comes first: nothing says where it belongs.
        (
            ab.clone(),
            json!({"containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        ),
        // The order of the patch wins.
        (
            ab.clone(),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1"}]}),
        ),
        (
            ab.clone(),
            json!({"containers": [{"name": "b", "image": null}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
        ),
        (json!({}), json!({"containers": [{"name": "a", "image": null}]}), json!({"containers": [{"name": "a"}]})),
        (ab.clone(), json!({"containers": []}), ab.clone()),
        (ab.clone(), json!({"containers": null}), json!({})),
        // Nested lists by their own key, which is not the key of apply.
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "p"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP", "name": "p"}]}]}),
        ),
    ]);
    let unnamed = json!({"containers": [{"image": "2"}]});
    assert_eq!(patched(ab.clone(), unnamed), Err(PatchErrorKind::Malformed));
    assert_eq!(patched(ab, json!({"containers": ["a"]})), Err(PatchErrorKind::Malformed));
}

#[test]
fn directives_in_objects() {
    let both = json!({"nodeSelector": {"a": "1", "b": "2"}});
    check([
        (both.clone(), json!({"nodeSelector": {"$patch": "replace", "c": "3"}}), json!({"nodeSelector": {"c": "3"}})),
        (both.clone(), json!({"nodeSelector": {"$patch": "delete"}}), json!({"nodeSelector": {}})),
        (
            both.clone(),
            json!({"nodeSelector": {"$patch": "merge", "c": "3"}}),
            json!({"nodeSelector": {"a": "1", "b": "2", "c": "3"}}),
        ),
        (json!({}), json!({"nodeSelector": {"$patch": "replace", "c": "3"}}), json!({"nodeSelector": {"c": "3"}})),
        (json!({}), json!({"nodeSelector": {"$patch": "delete"}}), json!({})),
        (json!({"replicas": 1}), json!({"$patch": "replace", "paused": true}), json!({"paused": true})),
    ]);
    for directive in [json!("grow"), json!(1), json!(null)] {
        let patch = json!({"nodeSelector": {"$patch": directive}});
        assert_eq!(patched(both.clone(), patch), Err(PatchErrorKind::Malformed));
    }
}

#[test]
fn directives_in_lists() {
    let abc = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    check([
        (
            abc.clone(),
            json!({"containers": [{"$patch": "delete", "name": "b"}]}),
            json!({"containers": [{"name": "a"}, {"name": "c"}]}),
        ),
        (abc.clone(), json!({"containers": [{"$patch": "delete", "name": "x"}]}), abc.clone()),
        (
            abc.clone(),
            json!({"containers": [{"$patch": "delete", "name": "b"}, {"name": "c", "image": "2"}]}),
            json!({"containers": [{"name": "a"}, {"name": "c", "image": "2"}]}),
        ),
        (
            abc.clone(),
            json!({"containers": [{"$patch": "replace"}, {"name": "d"}]}),
            json!({"containers": [{"name": "d"}]}),
        ),
        (abc.clone(), json!({"containers": [{"$patch": "replace"}]}), json!({"containers": []})),
        (json!({}), json!({"containers": [{"$patch": "delete", "name": "b"}]}), json!({"containers": []})),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "x"}, {"name": "y"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"$patch": "delete", "name": "x"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "y"}]}]}),
        ),
    ]);
    for item in [json!({"$patch": "delete"}), json!({"$patch": "merge", "name": "a"}), json!({"$patch": 1})] {
        assert_eq!(patched(abc.clone(), json!({"containers": [item]})), Err(PatchErrorKind::Malformed), "{item}");
    }
}

#[test]
fn retain_keys_drops_the_rest() {
    let rolling = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    check([
        (
            rolling.clone(),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        ),
        (
            rolling.clone(),
            json!({"strategy": {"$retainKeys": ["type", "rollingUpdate"], "type": "X"}}),
            json!({"strategy": {"type": "X", "rollingUpdate": {"maxSurge": 1}}}),
        ),
        (
            rolling.clone(),
            json!({"strategy": {"$retainKeys": ["type"], "type": "X", "rollingUpdate": null}}),
            json!({"strategy": {"type": "X"}}),
        ),
        (json!({}), json!({"strategy": {"$retainKeys": ["type"], "type": "X"}}), json!({"strategy": {"type": "X"}})),
    ]);
    for patch in [json!({"$retainKeys": ["x"], "type": "X"}), json!({"$retainKeys": "type", "type": "X"})] {
        assert_eq!(patched(rolling.clone(), json!({"strategy": patch})), Err(PatchErrorKind::Malformed), "{patch}");
    }
}

#[test]
fn scalars_merge_as_sets() {
    let ab = json!({"zones": ["a", "b"]});
    check([
        (ab.clone(), json!({"zones": ["c", "b"]}), json!({"zones": ["c", "a", "b"]})),
        (ab.clone(), json!({"zones": ["a"]}), ab.clone()),
        (json!({}), json!({"zones": ["a"]}), json!({"zones": ["a"]})),
        (ab.clone(), json!({"$deleteFromPrimitiveList/zones": ["a", "x"]}), json!({"zones": ["b"]})),
        (json!({}), json!({"$deleteFromPrimitiveList/zones": ["a"]}), json!({})),
        (
            ab.clone(),
            json!({"$setElementOrder/zones": ["c", "b"], "$deleteFromPrimitiveList/zones": ["a"],
                            "zones": ["c"]}),
            json!({"zones": ["c", "b"]}),
        ),
    ]);
    assert_eq!(patched(ab, json!({"$deleteFromPrimitiveList/zones": "a"})), Err(PatchErrorKind::Malformed));
}

#[test]
fn items_are_put_into_order() {
    let containers = |names: &str| -> Value { names.chars().map(|name| json!({"name": name.to_string()})).collect() };
    // there, patch, order, want
    for (live, patch, order, want) in [
        ("ab", "", "ba", "ba"),
        ("ab", "c", "abc", "abc"),
        ("ab", "c", "cab", "cab"),
        ("ab", "c", "acb", "acb"),
        // s and t are known to the server only.
        ("asbt", "", "ba", "sbat"),
        ("sab", "c", "cab", "csab"),
        ("abs", "", "ab", "abs"),
        ("asb", "", "ab", "asb"),
        ("asb", "c", "abc", "asbc"),
        ("", "ab", "ab", "ab"),
    ] {
        let mut change = json!({"$setElementOrder/containers": containers(order)});
        if !patch.is_empty() {
            change["containers"] = containers(patch);
        }
        let got = patched(json!({"containers": containers(live)}), change);
        assert_eq!(got, Ok(json!({"containers": containers(want)})), "{live} + {patch} in order {order}");
    }
    for change in [
        json!({"$setElementOrder/containers": containers("ab"), "containers": containers("c")}),
        json!({"$setElementOrder/containers": containers("ab"), "containers": containers("ba")}),
        json!({"$setElementOrder/containers": "ab"}),
        json!({"$setElementOrder/containers": containers("ab"), "containers": {}}),
    ] {
        assert_eq!(patched(json!({}), change.clone()), Err(PatchErrorKind::Malformed), "{change}");
    }
    check([
        (json!({}), json!({"$setElementOrder/containers": [{"name": "a"}]}), json!({})),
        // What is deleted is not ordered.
        (
            json!({"containers": containers("abc")}),
            json!({"$setElementOrder/containers": containers("ca"),
                "containers": [{"$patch": "delete", "name": "b"}, {"name": "a", "image": "2"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "2"}]}),
        ),
        // Lists that are replaced follow the order too.
        (
            json!({"tolerations": [{"key": "z"}]}),
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "a"}]}),
        ),
    ]);
}

#[test]
fn finalizers_are_a_set_and_owners_go_by_uid() {
    let object = json!({"metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "1", "name": "x"}]}});
    let patch = json!({"metadata": {"finalizers": ["b"], "ownerReferences": [{"$patch": "delete", "uid": "1"},
                                                                             {"uid": "2", "name": "y"}]}});
    let want = json!({"metadata": {"finalizers": ["b", "a"], "ownerReferences": [{"uid": "2", "name": "y"}]}});
    assert_eq!(strategic(deployment(), &object, &patch).unwrap(), want);
}

#[test]
fn a_patch_is_an_object() {
    assert!(matches!(strategic(deployment(), &json!({}), &json!([])), Err(PatchError::NotAnObject { found: "array" })));
    let deep = (0..200).fold(json!({}), |inner, _| json!({"options": inner}));
    assert!(matches!(strategic(deployment(), &json!({}), &deep), Err(PatchError::TooDeep)));
}

proptest! {
    #[test]
    fn nothing_panics(object in any_json(), patch in any_json()) {
        let _ = strategic(deployment(), &object, &patch);
        let _ = crate::merge(&object, &patch);
    }

    #[test]
    fn the_empty_patch_changes_nothing(object in crate::testing::any_deployment()) {
        prop_assert_eq!(strategic(deployment(), &object, &json!({})).unwrap(), object);
    }
}
