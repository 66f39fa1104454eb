//! Guest memory. Always shared: vhost-user daemons map it.

use super::{CommandLine, listed};
use crate::{
    config::Mib,
    qemu::{
        error::BootError,
        spec::{Memory, MemoryBackend},
    },
};

pub(super) fn add(line: &mut CommandLine, memory: &Memory) -> Result<(), BootError> {
    let mut size = format!("{}M", memory.boot.0);
    if memory.max > memory.boot {
        size.push_str(&format!(",slots={},maxmem={}M", memory.slots, memory.max.0));
    }
    line.option("-m", size);
    let mut object = match &memory.backend {
        MemoryBackend::Memfd => format!("memory-backend-memfd,id=dimm1,size={}M,share=on", memory.boot.0),
        MemoryBackend::Hugepages(path) | MemoryBackend::File(path) => {
            format!("memory-backend-file,id=dimm1,size={}M,mem-path={},share=on", memory.boot.0, listed(path)?)
        }
    };
    if memory.prealloc {
        object.push_str(",prealloc=on");
    }
    line.option("-object", object);
    Ok(())
}

/// The same kind of memory as an object to be added to a running machine.
pub(in crate::qemu) fn backend(memory: &Memory, id: &str, size: Mib) -> serde_json::Value {
    let mut object = serde_json::json!({
        "id": id, "size": size.bytes(), "share": true, "prealloc": memory.prealloc,
    });
    match &memory.backend {
        MemoryBackend::Memfd => object["qom-type"] = "memory-backend-memfd".into(),
        MemoryBackend::Hugepages(path) | MemoryBackend::File(path) => {
            object["qom-type"] = "memory-backend-file".into();
            object["mem-path"] = path.to_string_lossy().into();
        }
    }
    object
}
