//! Extensions and the packages they stand for.

/// Extensions by which pods get their own virtual machines; one is the name on
/// RHCOS, the other on Fedora.
pub const SANDBOXES: [&str; 2] = ["kata-containers", "sandboxed-containers"];

/// All known names, in order.
pub const KNOWN: [&str; 8] = [
    "ipsec",
    "kata-containers",
    "kerberos",
    "kernel-devel",
    "sandboxed-containers",
    "sysstat",
    "two-node-ha",
    "usbguard",
];

/// Packages of an extension; none if nobody knows it.
pub fn packages(extension: &str) -> Option<&'static [&'static str]> {
    Some(match extension {
        "kata-containers" | "sandboxed-containers" => &["kata-containers"],
        "usbguard" => &["usbguard"],
        "sysstat" => &["sysstat"],
        "kerberos" => &["krb5-workstation", "libkadm5"],
        "ipsec" => &["NetworkManager-libreswan", "libreswan"],
        "kernel-devel" => &["kernel-devel", "kernel-headers"],
        "two-node-ha" => &["pacemaker", "pcs", "fence-agents-all"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_has_packages() {
        assert!(KNOWN.iter().all(|name| packages(name).is_some()));
        assert!(KNOWN.is_sorted());
        assert_eq!(packages("emacs"), None);
    }
}
