//! In which order webhooks are called, and who is called again.

use serde_json::{Value, json};

use super::server::{Server, config_map, mutating, patches, says, validating};
use crate::admission::{Chain, Operation, testing::World};

/// A server where the hook `/x` notes its call in the object; `/x-once` only if it is not noted yet.
async fn noting_server() -> Server {
    Server::start(&["127.0.0.1"], |path, review| {
        let notes = review["request"]["object"]["data"]["notes"].as_str().unwrap_or_default().to_owned();
        let name = path.trim_start_matches('/').trim_end_matches("-once");
        if path == "/look" || path.ends_with("-once") && notes.contains(name) {
            return says(review, json!({}));
        }
        patches(review, &json!([{ "op": "add", "path": "/data/notes", "value": format!("{notes}{name}") }]))
    })
    .await
}

async fn notes(configurations: &[Value]) -> String {
    let world = World::with(configurations).await;
    let chain = Chain::new(world.reader.clone());
    let mut object = config_map();
    let given = object.clone();
    chain.mutate(&world.asks(Operation::Create, "configmaps", &given), &mut object, None).await.unwrap();
    object["data"]["notes"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn names_give_the_order_and_each_sees_what_others_did() {
    let server = noting_server().await;
    let hook = |name: &str| server.hook(name, &format!("/{name}"), json!({}));
    let seen = notes(&[mutating("2", &[hook("c"), hook("b")]), mutating("10", &[hook("a")])]).await;
    assert_eq!(seen, "acb", "by configuration name as text, then as listed");
}

#[tokio::test]
async fn earlier_hooks_are_called_again_if_they_want() {
    let server = noting_server().await;
    let hook = |path: &str, again: bool| {
        let policy = if again { "IfNeeded" } else { "Never" };
        server.hook(path.trim_start_matches('/'), path, json!({ "reinvocationPolicy": policy }))
    };
    type Row<'a> = (&'a [(&'a str, bool)], &'a str, &'a [&'a str]);
    let rows: [Row<'_>; 6] = [
        // Nobody changes anything: one call each.
        (&[("/look", true), ("/look", true)], "", &["/look", "/look"]),
        // The last change is a's own.
        (&[("/a", true), ("/look", true)], "a", &["/a", "/look"]),
        // b changes the object after a, which wants to know.
        (&[("/a-once", true), ("/b", false)], "ab", &["/a-once", "/b", "/a-once"]),
        (&[("/a", false), ("/b", true)], "ab", &["/a", "/b"]),
        // In round two changes call nobody a third time, and b is not told of a's second change.
        (&[("/a", true), ("/b", true)], "aba", &["/a", "/b", "/a"]),
        (&[("/a", true), ("/b", true), ("/c", true)], "abcab", &["/a", "/b", "/c", "/a", "/b"]),
    ];
    let mut before = 0;
    for (hooks, want, calls) in rows {
        let hooks: Vec<Value> = hooks.iter().map(|(path, again)| hook(path, *again)).collect();
        assert_eq!(notes(&[mutating("w", &hooks)]).await, want, "{calls:?}");
        let seen = server.paths().split_off(before);
        assert_eq!(seen, calls);
        before += seen.len();
    }
}

#[tokio::test]
async fn a_hook_that_did_not_match_at_first_is_not_called_in_round_two() {
    let server = noting_server().await;
    let picky = json!({ "reinvocationPolicy": "IfNeeded", "matchConditions": [
        { "name": "noted", "expression": "has(object.data.notes)" }] });
    let hooks = [server.hook("picky", "/p", picky), server.hook("b", "/b", json!({}))];
    assert_eq!(notes(&[mutating("w", &hooks)]).await, "b");
}

#[tokio::test]
async fn validating_hooks_are_asked_at_once_and_the_first_refusal_counts() {
    let server = Server::start(&["127.0.0.1"], |path, review| {
        let mut reply = says(review, json!({ "allowed": path == "/fine", "status": { "message": path } }));
        reply.after = std::time::Duration::from_millis(if path == "/first" { 600 } else { 300 });
        reply
    })
    .await;
    let hook = |path: &str| server.hook(path.trim_start_matches('/'), path, json!({}));
    let hooks = [hook("/fine"), hook("/first"), hook("/second")];
    let world = World::with(&[validating("w", &hooks)]).await;
    let chain = Chain::new(world.reader.clone());
    let object = config_map();
    let begun = std::time::Instant::now();
    let attributes = world.asks(Operation::Create, "configmaps", &object);
    let seen = chain.validate(&attributes, Some(&object), None).await.unwrap_err();
    assert!(seen.message.ends_with("denied the request: /first"), "{seen}");
    assert!(begun.elapsed() < std::time::Duration::from_millis(1200), "one after another would take longer");
}
