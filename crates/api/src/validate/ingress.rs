//! Ingresses and their classes.

use std::net::IpAddr;

use osc_schema::{Cause, Path};
use serde_json::{Value, json};

use super::{
    names,
    rules::{immutable, named, optional_name, port_number, required},
};
use crate::value::{array, has, integer, text};

/// What the path of an exact or a prefix rule may not hold, and what may not be at its end.
const UNCLEAR: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const UNCLEAR_ENDS: [&str; 2] = ["/..", "/."];
/// Longest name of a controller, in bytes.
const LONGEST_CONTROLLER: usize = 250;

pub(super) fn ingress(object: &Value, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    let rules = array(spec, "rules");
    if rules.is_empty() && !has(spec, "defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid(path, &json!([]), detail));
    }
    if has(spec, "defaultBackend") {
        backend(&spec["defaultBackend"], &path.field("defaultBackend"), causes);
    }
    optional_name(spec, "ingressClassName", names::subdomain, path, causes);
    let list = path.field("rules");
    for (index, each) in rules.iter().enumerate() {
        rule(each, &list.index(index), causes);
    }
    let list = path.field("tls");
    for (index, tls) in array(spec, "tls").iter().enumerate() {
        let path = list.index(index);
        let hosts = path.field("hosts");
        for (index, host) in array(tls, "hosts").iter().enumerate() {
            host_name(host.as_str().unwrap_or_default(), &hosts.index(index), causes);
        }
        optional_name(tls, "secretName", names::subdomain, &path, causes);
    }
}

fn rule(rule: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if host.parse::<IpAddr>().is_ok() {
            causes.push(Cause::invalid(path.field("host"), &host.into(), "must be a DNS name, not an IP address"));
        }
        host_name(host, &path.field("host"), causes);
    }
    if !has(rule, "http") {
        return;
    }
    let http = path.field("http");
    let list = http.field("paths");
    let paths = array(&rule["http"], "paths");
    if paths.is_empty() {
        causes.push(Cause::required(list, ""));
    }
    for (index, each) in paths.iter().enumerate() {
        let path = list.index(index);
        http_path(each, &path, causes);
        backend(&each["backend"], &path.field("backend"), causes);
    }
}

/// A name, or one whose first label is `*`.
fn host_name(host: &str, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match host.strip_prefix("*.") {
        Some(rest) => named(rest, names::subdomain, path, causes),
        None if host.contains('*') => {
            let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                          must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                          character (e.g. '*.example.com', regex used for validation is \
                          '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            causes.push(Cause::invalid(path, &host.into(), detail));
        }
        None => named(host, names::subdomain, path, causes),
    }
}

fn http_path(rule: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let given = text(rule, "path");
    let field = path.field("path");
    let mut wrong = |detail: &str| causes.push(Cause::invalid(field, &given.into(), detail));
    match text(rule, "pathType") {
        "Exact" | "Prefix" => {
            if !given.starts_with('/') {
                wrong("must be an absolute path");
            }
            for part in UNCLEAR.iter().filter(|part| given.contains(**part)) {
                wrong(&format!("must not contain '{part}'"));
            }
            for end in UNCLEAR_ENDS.iter().filter(|end| given.ends_with(**end)) {
                wrong(&format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !given.is_empty() && !given.starts_with('/') {
                wrong("must be an absolute path");
            }
        }
        "" => causes.push(Cause::required(path.field("pathType"), "pathType must be specified")),
        other => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            causes.push(Cause::not_supported(path.field("pathType"), &other.into(), &known));
        }
    }
}

fn backend(backend: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    match (has(backend, "resource"), has(backend, "service")) {
        (true, true) => causes.push(Cause::invalid(path, &"".into(), "cannot set both resource and service backends")),
        (true, false) => {
            let path = path.field("resource");
            required(&backend["resource"], "kind", &path, causes);
            required(&backend["resource"], "name", &path, causes);
        }
        (false, true) => service(&backend["service"], &path.field("service"), path, causes),
        (false, false) => {
            causes.push(Cause::invalid(path, &"".into(), "resource or service backend is required"));
        }
    }
}

fn service(service: &Value, path: &Path<'_>, backend: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(name) = required(service, "name", path, causes) {
        named(name, names::label_1035, &path.field("name"), causes);
    }
    let port = &service["port"];
    let (name, number) = (text(port, "name"), integer(port, "number").unwrap_or(0));
    let path = path.field("port");
    match (name.is_empty(), number == 0) {
        (false, false) => {
            causes.push(Cause::invalid(backend, &"".into(), "cannot set both port name & port number"));
        }
        (false, true) => named(name, names::port_name, &path.field("name"), causes),
        (true, false) => port_number(number, &path.field("number"), causes),
        (true, true) => causes.push(Cause::required(backend, "port name or number is required")),
    }
}

pub(super) fn class(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (spec, path) = (&object["spec"], &Path::Root.field("spec"));
    if let Some(controller) = required(spec, "controller", path, causes) {
        let field = path.field("controller");
        if controller.len() > LONGEST_CONTROLLER {
            causes.push(Cause::too_long(field, LONGEST_CONTROLLER as u64));
        }
        match controller.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() => named(domain, names::subdomain, &field, causes),
            _ => {
                let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                causes.push(Cause::invalid(field, &controller.into(), detail));
            }
        }
    }
    if let Some(old) = old {
        immutable(&old["spec"], spec, "controller", path, causes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{wrong, wrong_change};
    use super::*;

    #[test]
    fn ingresses_are_judged() {
        let rule = |kind: &str, path: &str, backend: Value| json!({"rules": [{"host": "a.b", "http": {"paths": [{"pathType": kind, "path": path, "backend": backend}]}}]});
        let good = || json!({"service": {"name": "s", "port": {"number": 80}}});
        let rows = [
            (rule("Prefix", "/", good()), ""),
            (rule("ImplementationSpecific", "", good()), ""),
            (json!({"defaultBackend": good()}), ""),
            (json!({"rules": [{"host": "*.a.b"}]}), ""),
            (json!({}), "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
            (
                json!({"rules": [{"host": "10.0.0.1"}]}),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (
                json!({"rules": [{"host": "a.*"}]}),
                "spec.rules[0].host: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must",
            ),
            (json!({"rules": [{"http": {}}]}), "spec.rules[0].http.paths: Required value"),
            (
                rule("Prefix", "x", good()),
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                rule("Exact", "/a//b", good()),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                rule("Exact", "/a/..", good()),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a/..\": cannot end with '/..'",
            ),
            (rule("", "/", good()), "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"),
            (
                rule("Some", "/", good()),
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Some\": supported values: \"Exact\", ",
            ),
            (
                rule("Prefix", "/", json!({})),
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ),
            (
                rule("Prefix", "/", json!({"service": {"name": "s", "port": {"number": 1, "name": "a"}}})),
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": cannot set both port name & port number",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "s"}}}),
                "spec.defaultBackend: Required value: port name or number is required",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "S", "port": {"number": 1}}}}),
                "spec.defaultBackend.service.name: Invalid value: \"S\"",
            ),
            (
                json!({"defaultBackend": good(), "tls": [{"hosts": ["A"]}]}),
                "spec.tls[0].hosts[0]: Invalid value: \"A\"",
            ),
        ];
        for (spec, want) in rows {
            let found = wrong("networking.k8s.io", "ingresses", json!({"spec": spec})).join("; ");
            assert!(found.starts_with(want) && found.is_empty() == want.is_empty(), "{spec}: {found}");
        }
    }

    #[test]
    fn classes_keep_their_controller() {
        let class = |name: &str| json!({"metadata": {"name": "x"}, "spec": {"controller": name}});
        assert_eq!(wrong("networking.k8s.io", "ingressclasses", class("a.b/c")), [""; 0]);
        assert_eq!(wrong("networking.k8s.io", "ingressclasses", class("")), ["spec.controller: Required value"]);
        let found = wrong("networking.k8s.io", "ingressclasses", class("plain"));
        assert_eq!(
            found,
            ["spec.controller: Invalid value: \"plain\": must be a domain-prefixed path (such as \"acme.io/foo\")"]
        );
        let found = wrong_change("networking.k8s.io", "ingressclasses", &class("a.b/c"), &class("a.b/d"));
        assert_eq!(found, ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]);
    }
}
