//! Console, control, panic device, bridges, entropy, vsock, shared files.

use super::{Channels, CommandLine, VsockLink, listed};
use crate::qemu::{
    error::BootError,
    spec::{SharedFs, VmSpec},
};

/// Slot of the first bridge on the root bus.
pub(in crate::qemu) const FIRST_BRIDGE: u8 = 2;

pub(super) fn add(line: &mut CommandLine, spec: &VmSpec, channels: Channels) -> Result<(), BootError> {
    let Channels { qmp, console, vsock, share } = channels;
    let qmp = line.inherit(qmp);
    line.option("-chardev", format!("socket,id=qmp,fd={qmp},server=on,wait=off"));
    line.option("-mon", "chardev=qmp,mode=control");
    let console = line.inherit(console);
    line.option("-chardev", format!("socket,id=console,fd={console}"));
    line.option("-serial", "chardev:console");
    line.option("-device", "pvpanic");

    for index in 0..spec.bridges {
        // The firmware reserves these windows; without them hot-plugged devices get no addresses.
        line.option(
            "-device",
            format!(
                "pci-bridge,bus=pcie.0,id=pci-bridge-{index},chassis_nr={},shpc=off,addr={},\
                 io-reserve=4k,mem-reserve=1m,pref64-reserve=1m",
                index + 1,
                FIRST_BRIDGE + index
            ),
        );
    }
    if let Some(source) = &spec.entropy {
        line.option("-object", format!("rng-random,id=rng0,filename={}", listed(source)?));
        line.option("-device", "virtio-rng-pci,rng=rng0,disable-legacy=on,romfile=");
    }
    if let Some(link) = vsock {
        add_vsock(line, link);
    }
    if let (Some(SharedFs { tag, queue_size, .. }), Some(fd)) = (&spec.share, share) {
        let fd = line.inherit(fd);
        line.option("-chardev", format!("socket,id=char-fs,fd={fd}"));
        line.option(
            "-device",
            format!(
                "vhost-user-fs-pci,chardev=char-fs,tag={},queue-size={queue_size},romfile=",
                tag.replace(',', ",,")
            ),
        );
    }
    Ok(())
}

fn add_vsock(line: &mut CommandLine, link: VsockLink) {
    match link {
        VsockLink::Kernel { fd, cid } => {
            let fd = line.inherit(fd);
            let device = "vhost-vsock-pci,id=vsock,disable-legacy=on";
            line.option("-device", format!("{device},vhostfd={fd},guest-cid={cid},romfile="));
        }
        VsockLink::User(socket) => {
            let fd = line.inherit(socket);
            line.option("-chardev", format!("socket,id=char-vsock,fd={fd}"));
            line.option("-device", "vhost-user-vsock-pci,id=vsock,chardev=char-vsock,romfile=");
        }
    }
}
