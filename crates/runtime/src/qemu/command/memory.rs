//! Guest memory. Always shared: vhost-user daemons map it.

use super::{CommandLine, listed};
use crate::{
    config::Mib,
    qemu::{
        error::BootError,
        spec::{Memory, MemoryBackend},
    },
};

/// The memory of the board, which is the file `made` when that exists already.
pub(super) fn add(line: &mut CommandLine, memory: &Memory, made: Option<String>) -> Result<(), BootError> {
    let mut size = format!("{}M", memory.boot.0);
    if memory.max > memory.boot {
        size.push_str(&format!(",slots={},maxmem={}M", memory.slots, memory.max.0));
    }
    line.option("-m", size);
    let path = match (made, &memory.backend) {
        (Some(path), _) => Some(path),
        (None, MemoryBackend::Memfd) => None,
        (None, MemoryBackend::Hugepages(path) | MemoryBackend::File(path)) => Some(listed(path)?),
    };
    let size = memory.boot.0;
    let mut object = match path {
        Some(path) => format!("memory-backend-file,id=dimm1,size={size}M,mem-path={path},share=on"),
        None => format!("memory-backend-memfd,id=dimm1,size={size}M,share=on"),
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
