//! The pod network of one engine: a bridge with an IPv4 and an IPv6 subnet.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    error::{EngineError, io},
    paths::Paths,
};

/// The subnets of one root; chosen once and kept, so that pods that survive a
/// restart of the engine stay reachable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnets {
    /// Network address of a /24.
    pub v4: Ipv4Addr,
    /// Network address of a /64 within the unique local range (RFC 4193).
    pub v6: Ipv6Addr,
}

/// How many /24 networks 10.128.0.0/10 has.
const CANDIDATES: u32 = 1 << 14;

/// Picks subnets for `root`, beginning at a place its name determines and
/// skipping what `routes` (the text of `/proc/net/route`) already covers.
pub fn choose(root: &str, routes: &str) -> Option<Subnets> {
    let digest = Sha256::digest(root);
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let taken: Vec<(u32, u32)> = routes.lines().skip(1).filter_map(parse_route).collect();
    let base = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    let v4 = (0..CANDIDATES).map(|n| base + ((first.wrapping_add(n) % CANDIDATES) << 8)).find(|&network| {
        // Two networks overlap when they agree on the bits both of them fix.
        taken.iter().all(|&(to, mask)| (network ^ to) & mask & 0xffff_ff00 != 0)
    })?;
    let mut v6 = [0; 16];
    v6[0] = 0xfd;
    v6[1..8].copy_from_slice(&digest[4..11]);
    Some(Subnets { v4: v4.into(), v6: v6.into() })
}

/// Destination and mask of one line of `/proc/net/route`, default routes left out.
fn parse_route(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split_whitespace();
    let to = u32::from_str_radix(fields.nth(1)?, 16).ok()?.swap_bytes();
    let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?.swap_bytes();
    (mask != 0).then_some((to, mask))
}

/// Reads the chosen subnets, choosing them first if need be; `wanted` is what the
/// caller has set aside.
///
/// # Errors
/// When the choice cannot be stored or nothing is free.
pub fn subnets(paths: &Paths, wanted: Option<Ipv4Addr>) -> Result<Subnets, EngineError> {
    let file = paths.subnets();
    if let Some(known) = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(known);
    }
    let routes = fs::read_to_string("/proc/net/route").map_err(io("read", "/proc/net/route"))?;
    let mut chosen = choose(&paths.dirs().root().to_string_lossy(), &routes).ok_or(EngineError::NoSubnet)?;
    chosen.v4 = wanted.unwrap_or(chosen.v4);
    fs::write(&file, json!(chosen).to_string()).map_err(io("write", &file))?;
    Ok(chosen)
}

/// The CNI configuration list.
pub fn conflist(paths: &Paths, subnets: &Subnets) -> String {
    let list = json!({
        "cniVersion": "0.4.0",
        "name": paths.network(),
        "plugins": [
            {
                "type": "bridge",
                "bridge": paths.bridge(),
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": paths.cni_leases(),
                    "ranges": [[{"subnet": format!("{}/24", subnets.v4)}], [{"subnet": format!("{}/64", subnets.v6)}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn route(to: Ipv4Addr, mask: Ipv4Addr) -> String {
        let hex = |address: Ipv4Addr| format!("{:08X}", u32::from(address).swap_bytes());
        format!("eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(to), hex(mask))
    }

    #[test]
    fn the_choice_is_stable_and_avoids_routes() {
        let free = choose("/a", HEAD).expect("free");
        assert_eq!(choose("/a", HEAD), Some(free.clone()));
        assert_ne!(choose("/b", HEAD), Some(free.clone()));
        assert_eq!(free.v4.octets()[3], 0);
        let taken = format!("{HEAD}{}", route(free.v4, Ipv4Addr::new(255, 255, 255, 0)));
        assert_ne!(choose("/a", &taken).expect("another").v4, free.v4);
    }

    #[test]
    fn wide_and_narrow_routes_both_count() {
        let all = format!("{HEAD}{}", route(Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(255, 0, 0, 0)));
        assert_eq!(choose("/a", &all), None);
        let free = choose("/a", HEAD).expect("free").v4;
        let host = Ipv4Addr::from(u32::from(free) + 7);
        let one = format!("{HEAD}{}", route(host, Ipv4Addr::new(255, 255, 255, 255)));
        assert_ne!(choose("/a", &one).expect("another").v4, free);
        let default = format!("{HEAD}{}", route(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
        assert_eq!(choose("/a", &default).expect("default does not count").v4, free);
    }
}
