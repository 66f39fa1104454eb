//! Requests against the real kernel, in a network namespace of the test's own.

use std::{process::Command, time::Duration};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::device::Uevents;

/// Runs `test` on a thread with an empty network. Needs root, as the agent does.
fn in_own_network<F: Future<Output = ()>>(links: &[&str], test: impl FnOnce(Network) -> F + Send) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for link in links {
                let status = Command::new("ip").args(link.split(' ')).status().unwrap();
                assert!(status.success(), "ip {link}");
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let devices = Devices::new(Uevents::default(), Duration::from_millis(20));
                test(Network::new(Arc::new(devices), Reaper::default())).await;
            });
        });
    });
}

fn interface(name: &str, mac: &str, addresses: &[(&str, &str)]) -> types::Interface {
    let address = |(address, mask): &(&str, &str)| types::IPAddress {
        address: (*address).into(),
        mask: (*mask).into(),
        ..Default::default()
    };
    types::Interface {
        name: name.into(),
        hwAddr: mac.into(),
        mtu: 1400,
        IPAddresses: addresses.iter().map(address).collect(),
        ..Default::default()
    }
}

fn route(dest: &str, gateway: &str) -> types::Route {
    types::Route { dest: dest.into(), gateway: gateway.into(), device: "eth0".into(), ..Default::default() }
}

const LINKS: &[&str] =
    &["link add d0 address 02:00:00:00:00:01 type veth peer name d1 address 02:00:00:00:00:02", "link set d1 up"];

async fn configured(network: &Network) {
    let wanted = interface("eth0", "02:00:00:00:00:01", &[("10.1.0.2", "16"), ("fd00::2", "64")]);
    network.update_interface(wanted).await.unwrap();
}

#[test]
fn an_interface_is_found_by_hardware_address_and_configured() {
    in_own_network(LINKS, |network| async move {
        configured(&network).await;
        let seen = network.interfaces().await.unwrap();
        let eth0 = seen.iter().find(|i| i.name == "eth0").unwrap();
        assert_eq!((eth0.hwAddr.as_str(), eth0.mtu), ("02:00:00:00:00:01", 1400));
        let mut addresses: Vec<_> = eth0
            .IPAddresses
            .iter()
            .filter(|a| !a.address.starts_with("fe80"))
            .map(|a| (a.address.as_str(), a.mask.as_str(), a.family.enum_value().unwrap()))
            .collect();
        addresses.sort_by_key(|a| a.0);
        let want = [("10.1.0.2", "16", types::IPFamily::v4), ("fd00::2", "64", types::IPFamily::v6)];
        assert_eq!(addresses, want);
        // Asking again replaces instead of adding.
        network.update_interface(interface("eth0", "02:00:00:00:00:01", &[("10.1.0.3", "16")])).await.unwrap();
        let seen = network.interfaces().await.unwrap();
        let eth0 = seen.iter().find(|i| i.name == "eth0").unwrap();
        assert!(eth0.IPAddresses.iter().all(|a| a.address != "10.1.0.2"), "{eth0:?}");
    });
}

#[test]
fn a_name_that_is_taken_is_freed() {
    in_own_network(LINKS, |network| async move {
        network.update_interface(interface("d1", "02:00:00:00:00:01", &[])).await.unwrap();
        let names: Vec<_> = network.interfaces().await.unwrap().into_iter().map(|i| (i.name, i.hwAddr)).collect();
        assert!(names.contains(&("d1".into(), "02:00:00:00:00:01".into())), "{names:?}");
        assert!(names.contains(&("d1_temp".into(), "02:00:00:00:00:02".into())), "{names:?}");
    });
}

#[test]
fn an_interface_found_by_name_gets_the_hardware_address() {
    in_own_network(LINKS, |network| async move {
        network.update_interface(interface("d0", "02:00:00:00:00:99", &[])).await.unwrap();
        let seen = network.interfaces().await.unwrap();
        assert!(seen.iter().any(|i| i.name == "d0" && i.hwAddr == "02:00:00:00:00:99"));
    });
}

#[test]
fn a_missing_interface_says_what_runtimes_look_for() {
    in_own_network(&[], |network| async move {
        let error = network.update_interface(interface("eth0", "02:00:00:00:00:01", &[])).await.unwrap_err();
        assert!(error.to_string().contains("Link not found"), "{error}");
        assert_eq!(error.kind(), Kind::NotFound);
    });
}

#[test]
fn routes_are_replaced_whole() {
    in_own_network(LINKS, |network| async move {
        configured(&network).await;
        let wanted = [
            route("", "10.9.9.1"),
            route("10.9.9.1/32", ""),
            route("192.168.0.0/24", "10.1.0.1"),
            route("fd01::/64", "fd00::1"),
            route("::/0", "fd00::1"),
        ];
        for _ in 0..2 {
            let request = agent::Routes { Routes: wanted.to_vec(), ..Default::default() };
            network.update_routes(request).await.unwrap();
        }
        let mut seen: Vec<_> =
            network.routes().await.unwrap().into_iter().map(|r| (r.dest, r.gateway, r.device)).collect();
        seen.retain(|r| r.2 == "eth0" && !r.0.starts_with("fe80") && r.0 != "10.1.0.0/16" && r.0 != "fd00::/64");
        seen.sort();
        let want = [
            ("", "10.9.9.1"),
            ("", "fd00::1"),
            ("10.9.9.1/32", ""),
            ("192.168.0.0/24", "10.1.0.1"),
            ("fd01::/64", "fd00::1"),
        ];
        assert_eq!(seen, want.map(|(d, g)| (d.to_owned(), g.to_owned(), "eth0".to_owned())));

        network
            .update_routes(agent::Routes { Routes: vec![route("", "10.1.0.1")], ..Default::default() })
            .await
            .unwrap();
        let left: Vec<_> = network.routes().await.unwrap().into_iter().filter(|r| !r.gateway.is_empty()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    });
}

#[test]
fn a_bad_route_takes_nothing_away() {
    in_own_network(LINKS, |network| async move {
        configured(&network).await;
        let good = agent::Routes { Routes: vec![route("", "10.1.0.1")], ..Default::default() };
        network.update_routes(good).await.unwrap();
        for bad in [route("nonsense", ""), types::Route { device: "eth7".into(), ..route("", "10.1.0.1") }] {
            let request = agent::Routes { Routes: vec![bad], ..Default::default() };
            network.update_routes(request).await.unwrap_err();
        }
        assert!(network.routes().await.unwrap().iter().any(|r| r.gateway == "10.1.0.1"));
    });
}

#[test]
fn neighbours_are_permanent_by_default() {
    in_own_network(LINKS, |network| async move {
        configured(&network).await;
        let entry = types::ARPNeighbor {
            toIPAddress: Some(types::IPAddress { address: "10.1.0.1".into(), ..Default::default() }).into(),
            device: "eth0".into(),
            lladdr: "02:00:00:00:00:77".into(),
            ..Default::default()
        };
        network.add_neighbours(std::slice::from_ref(&entry)).await.unwrap();
        network.add_neighbours(&[entry]).await.unwrap();
        let shown = Command::new("ip").args(["neigh", "show", "dev", "eth0"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("10.1.0.1 lladdr 02:00:00:00:00:77 PERMANENT"), "{shown}");
    });
}

#[test]
fn loopback_comes_up() {
    in_own_network(&[], |network| async move {
        network.loopback_up().await.unwrap();
        network.loopback_up().await.unwrap();
        let shown = Command::new("ip").args(["link", "show", "lo"]).output().unwrap();
        assert!(String::from_utf8(shown.stdout).unwrap().contains("LOOPBACK,UP"));
    });
}
