//! Can the network of a pod be led into a virtual machine? Tried in a network
//! namespace that ends with the shell that tries.

use tokio::process::Command;

use super::{finding::Finding, tool};

/// Two taps and the redirection from one to the other, as a sandbox has it.
const REDIRECTION: &str = "\
    ip tuntap add t0 mode tap; ip tuntap add t1 mode tap; \
    tc qdisc add dev t0 ingress; \
    tc filter add dev t0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev t1";

const MASQUERADE: &str = "iptables -w 5 -t nat -A POSTROUTING -m comment --comment osc -j MASQUERADE";

async fn attempt(script: &str) -> Result<String, String> {
    tool::run(Command::new("unshare").args(["--net", "--", "sh", "-ec", script])).await
}

/// Tap devices and traffic redirection.
pub async fn redirection() -> Finding {
    let name = "network redirection";
    match attempt(REDIRECTION).await {
        Ok(_) => Finding::ok(name, "tap devices, tc ingress with u32 and mirred"),
        Err(problem) => {
            let cure = "install iproute2 and load the kernel modules tun, sch_ingress, cls_u32 and act_mirred";
            Finding::missing(name, problem, cure)
        }
    }
}

/// Address translation, for pods that reach beyond this machine.
pub async fn masquerade() -> Finding {
    let name = "address translation";
    match attempt(MASQUERADE).await {
        Ok(_) => Finding::ok(name, "iptables nat"),
        Err(problem) => {
            let cure = "install iptables and load the kernel modules of its nat table; without it pods reach only \
                        this machine";
            Finding::warning(name, problem, cure)
        }
    }
}
