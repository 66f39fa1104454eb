//! Fronts in the language of nft(8).

use std::fmt::{self, Write};

use super::fronts::{Front, Protocol};

/// Packets with it go to an endpoint and get the machine's address.
const MARK: &str = "0x4000";
/// What nft takes.
const LONGEST_COMMENT: usize = 120;

/// Text that makes `table` hold the rules of `fronts` and nothing else.
pub fn of(table: &str, fronts: &[Front]) -> String {
    let mut text = none(table);
    // Writing into a string cannot fail.
    let _ = write(&mut text, table, fronts);
    text
}

/// Text after which there is no `table`, whether there was one or not.
pub fn none(table: &str) -> String {
    format!("table ip {table}\ndelete table ip {table}\n")
}

fn write(text: &mut String, table: &str, fronts: &[Front]) -> fmt::Result {
    let (served, unserved): (Vec<&Front>, Vec<&Front>) = fronts.iter().partition(|front| !front.targets.is_empty());
    writeln!(text, "table ip {table} {{")?;
    for (number, front) in served.iter().enumerate() {
        writeln!(text, " chain to-{number} {{")?;
        writeln!(text, "  meta mark set meta mark or {MARK}")?;
        writeln!(text, "  meta l4proto {} dnat to {}", front.protocol.name(), target(front))?;
        writeln!(text, " }}")?;
    }
    writeln!(text, " chain services {{")?;
    for (number, front) in served.iter().enumerate() {
        rule(text, front, &format!("goto to-{number}"))?;
    }
    writeln!(text, " }}\n chain unserved {{")?;
    for front in unserved {
        let how = if front.protocol == Protocol::Tcp { "reject with tcp reset" } else { "reject" };
        rule(text, front, how)?;
    }
    writeln!(text, " }}")?;
    for (chain, hook, body) in [
        ("prerouting", "nat hook prerouting priority -100", "jump services".to_owned()),
        ("output", "nat hook output priority -100", "jump services".to_owned()),
        ("postrouting", "nat hook postrouting priority 100", format!("meta mark & {MARK} == {MARK} masquerade")),
        ("refuse-forwarded", "filter hook forward priority 0", "jump unserved".to_owned()),
        ("refuse-local", "filter hook output priority 0", "jump unserved".to_owned()),
    ] {
        writeln!(text, " chain {chain} {{ type {hook}; {body}; }}")?;
    }
    writeln!(text, "}}")
}

/// What happens to connections to a front.
fn rule(text: &mut String, front: &Front, then: &str) -> fmt::Result {
    let protocol = front.protocol.name();
    let comment = comment(&front.name);
    writeln!(text, "  ip daddr {} {protocol} dport {} {then} comment \"{comment}\"", front.address, front.port)?;
    if let Some(port) = front.node_port {
        // From loopback the kernel would not route it.
        let local = "ip daddr != 127.0.0.0/8 fib daddr type local";
        writeln!(text, "  {local} {protocol} dport {port} {then} comment \"{comment}\"")?;
    }
    Ok(())
}

/// A name as a comment: in names the API has checked nothing ends one, but they may
/// be longer than it.
fn comment(name: &str) -> String {
    let usual = |c: &char| c.is_ascii_alphanumeric() || "-./:".contains(*c);
    name.chars().filter(usual).take(LONGEST_COMMENT).collect()
}

/// The endpoint, or a choice of them.
fn target(front: &Front) -> String {
    if let [(address, port)] = front.targets[..] {
        return format!("{address}:{port}");
    }
    let count = front.targets.len();
    let choice = if front.sticky { "jhash ip saddr" } else { "numgen random" };
    let targets = front.targets.iter().enumerate();
    let targets: Vec<String> =
        targets.map(|(number, (address, port))| format!("{number} : {address} . {port}")).collect();
    format!("{choice} mod {count} map {{ {} }}", targets.join(", "))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn front(port: u16, targets: &[&str]) -> Front {
        let target = |text: &&str| (text.parse().expect("address"), 8080);
        Front {
            name: "default/web:http".into(),
            address: "10.96.0.7".parse().expect("address"),
            port,
            node_port: None,
            protocol: Protocol::Tcp,
            sticky: false,
            targets: targets.iter().map(target).collect(),
        }
    }

    fn fronts() -> Vec<Front> {
        vec![
            front(80, &["10.1.0.1", "10.1.0.2"]),
            Front { sticky: true, node_port: Some(30081), ..front(81, &["10.1.0.1", "10.1.0.2"]) },
            Front { protocol: Protocol::Udp, ..front(53, &["10.1.0.3"]) },
            Front { node_port: Some(30082), ..front(82, &[]) },
            Front { protocol: Protocol::Sctp, ..front(83, &[]) },
            Front { name: format!("{}\"; drop #", "n".repeat(200)), ..front(84, &["10.1.0.1"]) },
        ]
    }

    #[test]
    fn every_front_has_its_rules() {
        let text = of("t", &fronts());
        for line in [
            "  ip daddr 10.96.0.7 tcp dport 80 goto to-0 comment \"default/web:http\"",
            "  meta l4proto tcp dnat to numgen random mod 2 map { 0 : 10.1.0.1 . 8080, 1 : 10.1.0.2 . 8080 }",
            "  meta l4proto tcp dnat to jhash ip saddr mod 2 map { 0 : 10.1.0.1 . 8080, 1 : 10.1.0.2 . 8080 }",
            "  ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 30081 goto to-1 comment \"default/web:http\"",
            "  meta l4proto udp dnat to 10.1.0.3:8080",
            "  ip daddr 10.96.0.7 tcp dport 82 reject with tcp reset comment \"default/web:http\"",
            "  ip daddr 10.96.0.7 sctp dport 83 reject comment \"default/web:http\"",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        }
    }

    /// In a network namespace of its own.
    #[test]
    fn the_kernel_takes_them_again_and_again_and_gives_them_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        for (name, text) in [("rules", of("t", &fronts())), ("empty", of("t", &[])), ("none", none("t"))] {
            std::fs::write(dir.path().join(name), text).expect("write");
        }
        let script = "nft -f rules; nft -f rules; nft list table ip t | grep -q 'goto to-1'; nft -f empty; nft -f none; nft -f none; test -z \"$(nft list tables)\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-ec", script]).current_dir(dir.path()).stdin(Stdio::null());
        let output = command.output().expect("unshare runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
