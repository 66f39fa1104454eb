//! Addresses in the shapes of the protocol.

use std::net::IpAddr;

use osc_agent_protocol::types;

use super::{NetworkError, Result, family, ip};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// Reads an interface address; the mask is a prefix length.
    pub(super) fn of_message(message: &types::IPAddress) -> Result<Self> {
        let address = ip("IP address", &message.address)?;
        Self::new(address, &message.mask)
    }

    /// Reads a route's destination: `address/length`, or an address alone.
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some((address, length)) => Self::new(ip("destination", address)?, length),
            None => {
                let address = ip("destination", text)?;
                Ok(Self { address, length: longest(address) })
            }
        }
    }

    fn new(address: IpAddr, length: &str) -> Result<Self> {
        let length = length.parse().ok().filter(|n| *n <= longest(address)).ok_or_else(|| NetworkError::Invalid {
            field: "prefix length",
            value: length.into(),
            wanted: "give 0 to 32, or to 128 for IPv6",
        })?;
        Ok(Self { address, length })
    }

    /// The same in the shape of the protocol.
    pub(super) fn message(self) -> types::IPAddress {
        types::IPAddress {
            family: family(self.address).into(),
            address: self.address.to_string(),
            mask: self.length.to_string(),
            ..Default::default()
        }
    }
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub(super) fn mac(text: &str) -> Result<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == 6).ok_or_else(|| NetworkError::Invalid {
        field: "hardware address",
        value: text.into(),
        wanted: "give six hexadecimal bytes joined by colons",
    })
}

/// Writes a hardware address of any length.
pub(super) fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_may_omit_their_length() {
        for (text, want) in [
            ("10.0.0.0/8", Some(("10.0.0.0", 8))),
            ("10.1.1.1", Some(("10.1.1.1", 32))),
            ("fd00::/64", Some(("fd00::", 64))),
            ("fd00::1", Some(("fd00::1", 128))),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0/", None),
            ("default", None),
            ("", None),
        ] {
            let want = want.map(|(a, length)| Prefix { address: a.parse().unwrap(), length });
            assert_eq!(Prefix::parse(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn hardware_addresses_have_six_bytes() {
        assert_eq!(mac("02:42:ac:11:00:0a").unwrap(), [2, 0x42, 0xac, 0x11, 0, 10]);
        assert_eq!(mac_text(&[2, 0x42, 0xac, 0x11, 0, 10]), "02:42:ac:11:00:0a");
        for text in ["", "02:42", "02:42:ac:11:00:zz", "02:42:ac:11:00:0a:01"] {
            assert!(mac(text).is_err(), "{text}");
        }
    }
}
