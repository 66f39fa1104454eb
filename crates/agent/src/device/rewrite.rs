//! Device numbers of a specification, from the host's to the guest's.

use std::collections::HashMap;

use osc_agent_protocol::oci;

use super::{Block, DeviceError};

/// A node as device rules know it: kind, major, minor.
type Numbers = (String, i64, i64);

/// Gives the devices at these container paths the numbers they have here, and
/// the rules that allowed their old numbers the new ones. All rules are translated
/// from the original numbers at once: one device's new numbers may be another's
/// old ones.
pub(super) fn apply(found: &[(&str, Block)], spec: &mut oci::Spec) -> Result<(), DeviceError> {
    if found.is_empty() {
        return Ok(());
    }
    let linux = spec.Linux.mut_or_insert_default();
    let known = |path: &str| linux.Devices.iter().any(|node| node.Path == path);
    if let Some((path, _)) = found.iter().find(|(path, _)| !known(path)) {
        return Err(DeviceError::NotInSpec { path: (*path).to_owned() });
    }
    let mut moved: HashMap<Numbers, (i64, i64)> = HashMap::new();
    for (path, block) in found {
        for node in linux.Devices.iter_mut().filter(|node| node.Path == *path) {
            moved.insert((node.Type.clone(), node.Major, node.Minor), (block.major, block.minor));
            (node.Major, node.Minor) = (block.major, block.minor);
        }
    }
    for rule in linux.Resources.mut_or_insert_default().Devices.iter_mut() {
        if let Some(numbers) = moved.get(&(rule.Type.clone(), rule.Major, rule.Minor)) {
            (rule.Major, rule.Minor) = *numbers;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, major: i64, minor: i64) -> oci::LinuxDevice {
        oci::LinuxDevice { Path: path.into(), Type: "b".into(), Major: major, Minor: minor, ..Default::default() }
    }

    fn rule(kind: &str, major: i64, minor: i64) -> oci::LinuxDeviceCgroup {
        oci::LinuxDeviceCgroup {
            Allow: true,
            Type: kind.into(),
            Major: major,
            Minor: minor,
            Access: "rw".into(),
            ..Default::default()
        }
    }

    fn block(major: i64, minor: i64) -> Block {
        Block { node: "/dev/x".into(), major, minor }
    }

    #[test]
    fn numbers_that_swap_places_do_not_chain() {
        let mut spec = oci::Spec::new();
        let linux = spec.Linux.mut_or_insert_default();
        linux.Devices = vec![node("/dev/a", 8, 0), node("/dev/b", 8, 16), node("/dev/c", 9, 9)];
        linux.Resources.mut_or_insert_default().Devices =
            vec![rule("b", 8, 0), rule("b", 8, 16), rule("c", 8, 0), rule("b", 9, 9)];
        apply(&[("/dev/a", block(8, 16)), ("/dev/b", block(8, 0))], &mut spec).unwrap();
        let nodes: Vec<_> = spec.Linux.Devices.iter().map(|d| (d.Major, d.Minor)).collect();
        assert_eq!(nodes, [(8, 16), (8, 0), (9, 9)]);
        let rules: Vec<_> = spec.Linux.Resources.Devices.iter().map(|r| (r.Type.as_str(), r.Major, r.Minor)).collect();
        assert_eq!(rules, [("b", 8, 16), ("b", 8, 0), ("c", 8, 0), ("b", 9, 9)]);
    }

    #[test]
    fn a_device_the_container_does_not_list_is_refused_and_nothing_changes() {
        let mut spec = oci::Spec::new();
        spec.Linux.mut_or_insert_default().Devices = vec![node("/dev/a", 8, 0)];
        let before = spec.clone();
        assert!(apply(&[("/dev/a", block(1, 1)), ("/dev/z", block(2, 2))], &mut spec).is_err());
        assert_eq!(spec, before);
    }
}
