//! Conversion and stripping of a specification with every field the protocol knows.
//!
//! `OSC_REFRESH=1 cargo test -p osc-runtime` rewrites the golden files; read the diff.

use std::{fs, path::Path};

use osc_agent_protocol::oci as proto;
use protobuf::text_format::print_to_string_pretty;

use super::*;
use crate::id::SandboxId;

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spec/golden").join(name);
    if std::env::var_os("OSC_REFRESH").is_some() {
        fs::write(&path, found).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(want == found, "{} differs from:\n{found}", path.display());
}

fn full() -> proto::Spec {
    spec_to_proto(&serde_json::from_str(include_str!("golden/full.json")).unwrap())
}

fn stripped(spec: proto::Spec, seccomp: bool) -> ForGuest {
    let kind = PodKind::Container { sandbox: SandboxId::new("s1").unwrap() };
    let mounts = vec![proto::Mount { destination: "/data".into(), source: "/guest/data".into(), ..Default::default() }];
    for_guest(spec, GuestRules { kind: &kind, bundle: "/run/bundle", rootfs: "/guest/rootfs".into(), mounts, seccomp })
}

/// Annotations are a map, whose order in the text is not fixed.
fn without_annotations(mut spec: proto::Spec) -> String {
    spec.Annotations.clear();
    print_to_string_pretty(&spec)
}

#[test]
fn every_field_of_the_protocol_is_converted() {
    golden("full.textproto", &print_to_string_pretty(&full()));
}

#[test]
fn the_guest_is_told_nothing_of_the_host() {
    let guest = stripped(full(), false);
    golden("stripped.textproto", &without_annotations(guest.spec.clone()));
    assert!(guest.sandbox_pidns, "the process namespace had a path");
    let mut annotations: Vec<_> = guest.spec.Annotations.into_iter().collect();
    annotations.sort();
    let want = [
        ("io.katacontainers.pkg.oci.bundle_path", "/run/bundle"),
        ("io.katacontainers.pkg.oci.container_type", "pod_container"),
    ];
    assert_eq!(annotations, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn seccomp_goes_along_when_it_applies() {
    let whole = full();
    assert_eq!(stripped(whole.clone(), true).spec.Linux.Seccomp, whole.Linux.Seccomp);
}

#[test]
fn a_process_namespace_of_its_own_is_not_the_pods() {
    let mut spec = full();
    for namespace in &mut spec.Linux.mut_or_insert_default().Namespaces {
        namespace.Path.clear();
    }
    assert!(!stripped(spec, false).sandbox_pidns);
    assert!(!stripped(proto::Spec::default(), false).sandbox_pidns);
}
