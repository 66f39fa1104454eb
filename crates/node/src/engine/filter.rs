//! Packet filter rules of one network, as the CNI plugins `bridge` and `portmap`
//! leave them when a pod was not taken down by them.
//!
//! Rules name their network in a comment and jump to chains of their own. The
//! chains of `portmap` itself are shared by all networks of the machine; they go
//! when nobody forwards a port any more, and come back by themselves.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

use super::process::which;

/// How long the tools may wait for each other's lock.
const LIMIT: Duration = Duration::from_secs(20);
/// Chains all networks share.
const SHARED: [&str; 3] = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"];

/// Removes the rules of `network` for both address families. A machine without
/// the tools has no rules either.
pub async fn remove(network: &str) -> Result<(), String> {
    for (save, restore) in [("iptables-save", "iptables-restore"), ("ip6tables-save", "ip6tables-restore")] {
        let (Some(save), Some(restore)) = (which(save), which(restore)) else { continue };
        let saved = run(Command::new(save).args(["-t", "nat"]), "").await?;
        if let Some(script) = removal(&saved, network) {
            run(Command::new(restore).args(["--noflush", "--wait", "10"]), &script).await?;
        }
    }
    Ok(())
}

async fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let name = format!("{:?}", command.as_std().get_program());
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let work = async {
        let mut child = spawned?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_) => Err(format!("{name}: no end after {LIMIT:?}")),
    }
}

/// What to feed to `iptables-restore --noflush`, given the output of
/// `iptables-save`; nothing if there is nothing to remove.
fn removal(saved: &str, network: &str) -> Option<String> {
    // Quotes within the comment are escaped by iptables-save.
    let mark = format!("\\\"{network}\\\"");
    let rules: Vec<(&str, &str)> = saved.lines().filter_map(|line| line.strip_prefix("-A ")?.split_once(' ')).collect();
    let ours = |rule: &str| rule.contains(&mark);
    let own_chain = |target: &&str| target.starts_with("CNI-") && !SHARED.contains(target);
    let mut chains: BTreeSet<&str> =
        rules.iter().filter(|(_, rule)| ours(rule)).filter_map(|(_, rule)| target(rule)).filter(own_chain).collect();
    let mut doomed: Vec<(&str, &str)> =
        rules.iter().copied().filter(|(chain, rule)| ours(rule) && !chains.contains(chain)).collect();
    let forwards = |(chain, rule): &&(&str, &str)| *chain == SHARED[0] && !ours(rule);
    let shared_exist = SHARED.iter().all(|chain| saved.lines().any(|line| line.starts_with(&format!(":{chain} "))));
    if shared_exist && !rules.iter().any(|rule| forwards(&rule)) {
        let jumps = |rule: &str| target(rule).is_some_and(|target| SHARED.contains(&target));
        doomed.extend(rules.iter().copied().filter(|(chain, rule)| jumps(rule) && !SHARED.contains(chain)));
        doomed.retain(|(chain, _)| !SHARED.contains(chain));
        chains.extend(SHARED);
    }
    if doomed.is_empty() && chains.is_empty() {
        return None;
    }
    let deletes = doomed.iter().map(|(chain, rule)| format!("-D {chain} {rule}\n"));
    let flushes = chains.iter().map(|chain| format!("-F {chain}\n"));
    let removes = chains.iter().map(|chain| format!("-X {chain}\n"));
    let lines: String = deletes.chain(flushes).chain(removes).collect();
    Some(format!("*nat\n{lines}COMMIT\n"))
}

/// Where a rule jumps to.
fn target(rule: &str) -> Option<&str> {
    rule.rsplit_once("-j ").map(|(_, target)| target.split(' ').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"*nat
:POSTROUTING ACCEPT [0:0]
:CNI-aa - [0:0]
:CNI-bb - [0:0]
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"osc-1\" id: \"x\"" -j CNI-aa
-A POSTROUTING -s 10.0.1.2/32 -m comment --comment "name: \"osc-12\" id: \"y\"" -j CNI-bb
-A CNI-aa -d 10.0.0.0/24 -m comment --comment "name: \"osc-1\" id: \"x\"" -j ACCEPT
-A CNI-bb -d 10.0.1.0/24 -m comment --comment "name: \"osc-12\" id: \"y\"" -j ACCEPT
COMMIT
"#;

    const PORTS: &str = r#"*nat
:CNI-DN-1 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-1 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"osc-1\" id: \"x\"" -m multiport --dports 80 -j CNI-DN-1
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
COMMIT
"#;

    #[test]
    fn only_rules_of_the_network_go() {
        let want = "*nat\n-D POSTROUTING -s 10.0.0.2/32 -m comment --comment \"name: \\\"osc-1\\\" id: \\\"x\\\"\" -j CNI-aa\n\
                    -F CNI-aa\n-X CNI-aa\nCOMMIT\n";
        assert_eq!(removal(SAVED, "osc-1").as_deref(), Some(want));
        assert_eq!(removal(SAVED, "osc-3"), None);
    }

    #[test]
    fn shared_chains_go_with_the_last_forwarded_port() {
        let want = "*nat\n-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
                    -F CNI-DN-1\n-F CNI-HOSTPORT-DNAT\n-F CNI-HOSTPORT-MASQ\n-F CNI-HOSTPORT-SETMARK\n\
                    -X CNI-DN-1\n-X CNI-HOSTPORT-DNAT\n-X CNI-HOSTPORT-MASQ\n-X CNI-HOSTPORT-SETMARK\nCOMMIT\n";
        assert_eq!(removal(PORTS, "osc-1").as_deref(), Some(want));
        assert_eq!(removal(PORTS, "osc-2"), None, "somebody else forwards a port");
    }
}
