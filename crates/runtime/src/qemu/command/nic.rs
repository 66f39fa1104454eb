//! Network cards on tap devices.

use super::CommandLine;
use crate::qemu::spec::Nic;

pub(super) fn add(line: &mut CommandLine, nic: Nic) {
    let Nic { id, taps, vhosts, mac, mtu } = nic;
    let queues = taps.len();
    let mut netdev = format!("tap,id={id},fds={}", line.inherit_all(taps));
    if !vhosts.is_empty() {
        netdev.push_str(&format!(",vhost=on,vhostfds={}", line.inherit_all(vhosts)));
    }
    line.option("-netdev", netdev);
    let mut device =
        format!("virtio-net-pci,netdev={id},id=virtio-{id},mac={},disable-legacy=on,romfile=", mac_text(mac));
    if queues > 1 {
        device.push_str(&format!(",mq=on,vectors={}", vectors(queues)));
    }
    if let Some(mtu) = mtu {
        device.push_str(&format!(",host_mtu={mtu}"));
    }
    line.option("-device", device);
}

/// Interrupts of a card: one per queue and direction, configuration, control.
pub(in crate::qemu) fn vectors(queue_pairs: usize) -> usize {
    2 * queue_pairs + 2
}

/// `02:00:00:00:00:01`.
pub(in crate::qemu) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
