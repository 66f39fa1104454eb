//! A pod out of the arguments of `osc run IMAGE`.

use std::hash::{BuildHasher, RandomState};

use osc_agent_protocol::Kind;
use serde_json::{Value, json};

use crate::Failure;

/// Seconds between asking and killing. A shell that is process 1 does not hear the
/// asking, and whoever typed Ctrl-C is waiting.
const GRACE: u32 = 3;

/// What was given.
pub struct Options<'a> {
    pub image: &'a str,
    pub command: &'a [String],
    pub name: Option<&'a str>,
    pub env: &'a [String],
    pub publish: &'a [String],
    pub stdin: bool,
    pub tty: bool,
}

/// The pod as an object of the API; values are checked with it.
///
/// # Errors
/// When a port cannot be read.
pub fn pod(options: &Options<'_>) -> Result<Value, Failure> {
    let container = short_name(options.image);
    let name = options.name.map_or_else(|| format!("{container}-{}", random_suffix()), str::to_owned);
    let ports = options.publish.iter().map(|text| port(text)).collect::<Result<Vec<_>, _>>()?;
    let env: Vec<Value> = options.env.iter().map(|text| variable(text, |name| std::env::var(name).ok())).collect();
    // Nothing is expanded in what comes from a shell: that has done it already.
    let args: Vec<String> = options.command.iter().map(|word| word.replace("$(", "$$(")).collect();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE,
            "containers": [{
                "name": container,
                "image": options.image,
                "imagePullPolicy": "IfNotPresent",
                "args": args,
                "env": env,
                "ports": ports,
                "stdin": options.stdin,
                "stdinOnce": options.stdin,
                "tty": options.tty,
            }],
        },
    }))
}

/// The last part of an image's name, as a DNS label.
fn short_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    let name = last.split(['@', ':']).next().unwrap_or_default().to_ascii_lowercase();
    let label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "container".into() } else { label.to_owned() }
}

/// Five characters that differ each time.
fn random_suffix() -> String {
    let mut value = RandomState::new().hash_one(std::process::id());
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789"; // no vowels, no words
    let mut suffix = String::new();
    for _ in 0..5 {
        suffix.push(char::from(alphabet[(value % alphabet.len() as u64) as usize]));
        value /= alphabet.len() as u64;
    }
    suffix
}

/// `NAME=VALUE`, or `NAME` for the value it has here.
fn variable(text: &str, here: impl Fn(&str) -> Option<String>) -> Value {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, here(text).unwrap_or_default()),
    };
    json!({"name": name, "value": value.replace("$(", "$$(")})
}

/// `[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`.
fn port(text: &str) -> Result<Value, Failure> {
    let wrong = || Failure::new(Kind::Invalid, format!("port {text:?} is not [ADDRESS:]HOST:CONTAINER[/PROTOCOL]"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, container) = numbers.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let number = |text: &str| text.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(wrong);
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok(json!({
        "containerPort": number(container)?,
        "hostPort": number(host)?,
        "hostIP": address,
        "protocol": protocol.to_ascii_uppercase(),
    }))
}

#[cfg(test)]
mod tests {
    use osc_node::pod::Manifest;

    use super::*;

    #[test]
    fn names_come_from_the_image() {
        for (image, want) in [
            ("busybox", "busybox"),
            ("localhost/a/My_App:1.2", "my-app"),
            ("x@sha256:00", "x"),
            ("host:5000/_", "container"),
        ] {
            assert_eq!(short_name(image), want, "{image}");
        }
    }

    #[test]
    fn ports_are_read() {
        let seen = |text: &str| {
            port(text).ok().map(|p| (p["hostIP"].clone(), p["hostPort"].clone(), p["containerPort"].clone()))
        };
        for (text, want) in [
            ("8080:80", Some(("", 8080, 80))),
            ("127.0.0.1:8080:80/udp", Some(("127.0.0.1", 8080, 80))),
            ("[::1]:8080:80", Some(("::1", 8080, 80))),
            ("80", None),
            ("a:80", None),
            ("80:0", None),
            ("70000:80", None),
        ] {
            let want = want.map(|(ip, host, container)| (json!(ip), json!(host), json!(container)));
            assert_eq!(seen(text), want, "{text}");
        }
    }

    #[test]
    fn a_good_pod_comes_out() {
        let options = Options {
            image: "localhost/busybox",
            command: &["echo".into(), "$(X)".into()],
            name: None,
            env: &["A=b=c".into()],
            publish: &["8080:80".into()],
            stdin: true,
            tty: false,
        };
        let manifest = Manifest::new("test", pod(&options).expect("pod")).expect("good");
        let container = &manifest.pod.containers[0];
        assert_eq!(container.args, ["echo", "$$(X)"]);
        assert_eq!(container.env[0].0, "A");
        assert!(container.stdin && container.stdin_once && manifest.pod.name.starts_with("busybox-"));
        assert_eq!(variable("HOME", |_| Some("/x".into())), json!({"name": "HOME", "value": "/x"}));
    }
}
