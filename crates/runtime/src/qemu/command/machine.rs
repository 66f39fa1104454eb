//! Board, processor, kernel.

use super::{CommandLine, listed, plain};
use crate::{
    config::Mib,
    qemu::{
        error::BootError,
        spec::{Accelerator, Root, VmSpec},
    },
};

/// Parts of the board no guest of ours uses; each costs memory or boot time.
const BOARD: &str = "q35,hpet=off,sata=off,smbus=off,usb=off,vmport=off,smm=off,graphics=off,i8042=off";

/// The emulated processor: all that emulation knows, except features that make
/// guest code choose what is fast on silicon and slow here (string instructions
/// run byte by byte) or that cost time at each switch of tasks and have no users.
const EMULATED: &str = "max,-erms,-fsrm,-mpx,-pku";

pub(super) fn add(line: &mut CommandLine, spec: &VmSpec, kernel: Option<String>) -> Result<(), BootError> {
    // No files of the host's administrator, no default devices, nothing on screen, and a reset is an end.
    for flag in ["-no-user-config", "-nodefaults", "-nographic", "-no-reboot"] {
        line.flag(flag);
    }
    let mut machine = format!("{BOARD},memory-backend=dimm1");
    if spec.accelerator == Accelerator::Kvm {
        machine.push_str(",kernel_irqchip=on");
    }
    append(&mut machine, &spec.machine_accelerators);
    line.option("-machine", machine);

    let (mut accelerator, mut cpu) = match spec.accelerator {
        Accelerator::Kvm => ("kvm".to_owned(), "host".to_owned()),
        Accelerator::Tcg { .. } => ("tcg,thread=multi".to_owned(), EMULATED.to_owned()),
    };
    if let Accelerator::Tcg { tb_size: Mib(size @ 1..) } = spec.accelerator {
        append(&mut accelerator, &format!("tb-size={size}"));
    }
    append(&mut cpu, &spec.cpu_features);
    line.option("-accel", accelerator);
    line.option("-cpu", cpu);
    let (boot, max) = (spec.cpus.boot, spec.cpus.max);
    line.option("-smp", format!("{boot},cores=1,threads=1,sockets={max},maxcpus={max}"));

    line.option("-rtc", "base=utc,driftfix=slew,clock=host");
    line.option("-global", "kvm-pit.lost_tick_policy=discard");
    match kernel {
        Some(path) => line.option("-kernel", path),
        None => line.option("-kernel", plain(&spec.boot.kernel)?),
    }
    match &spec.boot.root {
        Root::Initrd(path) => line.option("-initrd", plain(path)?),
        Root::Image(path) => {
            let file = listed(path)?;
            line.option(
                "-blockdev",
                format!(
                    "driver=raw,node-name=root,read-only=on,file.driver=file,file.filename={file},file.locking=off"
                ),
            );
            line.option("-device", "virtio-blk-pci,drive=root,disable-legacy=on,share-rw=on,romfile=");
        }
    }
    line.option("-append", &spec.boot.command_line);
    if let Some(firmware) = &spec.firmware {
        line.option("-bios", plain(firmware)?);
    }
    Ok(())
}

fn append(list: &mut String, more: &str) {
    if !more.is_empty() {
        list.push(',');
        list.push_str(more);
    }
}
