use std::path::Path;

use serde_json::json;

use super::*;

fn input(name: &str, role: &str, spec: Value) -> Input {
    Input { name: name.into(), role: role.into(), generated: false, spec }
}

fn with_file(content: &str) -> Value {
    json!({"config": {"ignition": {"version": "3.2.0"},
        "storage": {"files": [{"path": "/etc/x", "contents": {"source": format!("data:,{content}")}}]}}})
}

fn content(rendered: &Rendered) -> String {
    let file = &rendered.spec.ignition.files[Path::new("/etc/x")];
    String::from_utf8(file.contents.clone().unwrap().bytes).unwrap()
}

#[test]
fn row_2_the_higher_name_wins_whatever_the_order_of_arrival() {
    let (a, b) = (input("10-a", "worker", with_file("low")), input("20-b", "worker", with_file("high")));
    let one = render("worker", &[a.clone(), b.clone()], None).unwrap();
    let two = render("worker", &[b, a], None).unwrap();
    assert_eq!(content(&one), "high");
    assert_eq!(one, two);
    assert_eq!(one.sources, ["10-a", "20-b"]);
}

#[test]
fn row_3_a_custom_pool_beats_worker_whatever_the_names() {
    let inputs = [input("99-z", "worker", with_file("worker")), input("10-a", "kata-oc", with_file("custom"))];
    assert_eq!(content(&render("kata-oc", &inputs, None).unwrap()), "custom");
}

#[test]
fn row_4_the_same_inputs_get_the_same_name_and_a_byte_makes_another() {
    let name = |content: &str| render("worker", &[input("a", "worker", with_file(content))], None).unwrap().name;
    assert_eq!(name("x"), name("x"));
    assert_ne!(name("x"), name("y"));
    let other = render("infra", &[input("b", "worker", with_file("x"))], None).unwrap().name;
    assert_eq!(
        other.strip_prefix("rendered-infra-"),
        name("x").strip_prefix("rendered-worker-"),
        "equal specs share it"
    );
}

#[test]
fn row_6_a_pool_without_inputs_has_nothing_to_render() {
    let error = render("empty", &[], None).unwrap_err();
    assert!(matches!(error, RenderError::NoMatch { pool } if pool == "empty"));
}

#[test]
fn lists_are_joined_and_scalars_come_from_the_last_that_sets_them() {
    let one = json!({"kernelArguments": ["a", "b"], "extensions": ["usbguard"], "fips": true, "kernelType": "realtime",
        "osImageURL": "early"});
    let two =
        json!({"kernelArguments": ["a"], "extensions": ["usbguard"], "kernelType": "default", "osImageURL": "late"});
    let mut generated = input("30", "worker", json!({"osImageURL": "generated"}));
    generated.generated = true;
    let rendered =
        render("worker", &[input("10", "worker", one), input("20", "worker", two), generated], None).unwrap();
    assert_eq!(rendered.spec.kernel_arguments, ["a", "b", "a"]);
    assert_eq!(rendered.spec.extensions, ["usbguard", "usbguard"]);
    assert_eq!((rendered.spec.fips, rendered.spec.kernel), (true, Kernel::Realtime));
    assert_eq!((rendered.spec.os_image_url.as_str(), rendered.os_image_overridden), ("late", true));
}

#[test]
fn row_25_an_unknown_extension_is_refused_by_name() {
    let inputs = [input("10-a", "worker", json!({})), input("50-b", "worker", json!({"extensions": ["emacs"]}))];
    let error = render("worker", &inputs, None).unwrap_err().to_string();
    assert!(error.contains("50-b") && error.contains("`emacs`"), "{error}");
}

#[test]
fn other_guilty_inputs_are_named_too() {
    let large = json!({"kernelArguments": ["x".repeat(MAX_BYTES)]});
    let devel = json!({"extensions": ["kernel-devel"]});
    for (inputs, want) in [
        (vec![input("a", "worker", json!({})), input("b", "worker", large)], "the largest input is b"),
        (
            vec![input("a", "worker", devel), input("b", "worker", json!({"kernelType": "realtime"}))],
            "MachineConfig a asks",
        ),
        (
            vec![input("a", "worker", json!({})), input("b", "worker", json!({"kernelType": "x"}))],
            "MachineConfig b cannot",
        ),
    ] {
        let error = render("worker", &inputs, None).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn row_21_what_running_nodes_cannot_do_is_not_rendered() {
    let bob = json!({"config": {"ignition": {"version": "3.2.0"}, "passwd": {"users": [{"name": "bob"}]}}});
    let inputs = [input("10-a", "worker", with_file("x")), input("50-bob", "worker", bob)];
    let current = render("worker", &inputs[..1], None).unwrap().spec;
    let error = render("worker", &inputs, Some(&current)).unwrap_err().to_string();
    assert!(error.contains("50-bob (passwd.users.bob:"), "{error}");
    let with_bob = render("worker", &inputs, None).unwrap().spec;
    let error = render("worker", &inputs[..1], Some(&with_bob)).unwrap_err().to_string();
    assert!(error.contains("a deleted or changed MachineConfig"), "{error}");
}
