//! The specification as `config.json`, which guest hooks read from the bundle.
//! Names are those of the OCI runtime specification; unset parts are left out.

use osc_agent_protocol::oci;
use serde_json::{Map, Value, json};

/// The whole specification.
pub fn config(spec: &oci::Spec) -> Value {
    object([
        ("ociVersion", json!(spec.Version)),
        ("process", spec.Process.as_ref().map_or(Value::Null, process)),
        ("root", json!({ "path": spec.Root.Path, "readonly": spec.Root.Readonly })),
        ("hostname", text(&spec.Hostname)),
        ("mounts", spec.Mounts.iter().map(mount).collect()),
        ("hooks", hooks(&spec.Hooks)),
        ("annotations", json!(spec.Annotations)),
        ("linux", spec.Linux.as_ref().map_or(Value::Null, linux)),
    ])
}

/// An object of all entries that say something.
fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries = entries.into_iter().filter(|(_, value)| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    });
    Value::Object(entries.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn text(value: &str) -> Value {
    if value.is_empty() { Value::Null } else { value.into() }
}

fn nonzero(value: impl Into<Value>) -> Value {
    let value = value.into();
    if value == 0 { Value::Null } else { value }
}

fn process(process: &oci::Process) -> Value {
    let user = &process.User;
    let capabilities = &process.Capabilities;
    let rlimit = |limit: &oci::POSIXRlimit| json!({ "type": limit.Type, "hard": limit.Hard, "soft": limit.Soft });
    object([
        ("terminal", process.Terminal.into()),
        ("user", json!({ "uid": user.UID, "gid": user.GID, "additionalGids": user.AdditionalGids })),
        ("args", json!(process.Args)),
        ("env", json!(process.Env)),
        ("cwd", json!(process.Cwd)),
        (
            "capabilities",
            object([
                ("bounding", json!(capabilities.Bounding)),
                ("effective", json!(capabilities.Effective)),
                ("inheritable", json!(capabilities.Inheritable)),
                ("permitted", json!(capabilities.Permitted)),
                ("ambient", json!(capabilities.Ambient)),
            ]),
        ),
        ("rlimits", process.Rlimits.iter().map(rlimit).collect()),
        ("noNewPrivileges", process.NoNewPrivileges.into()),
        ("apparmorProfile", text(&process.ApparmorProfile)),
        ("oomScoreAdj", process.OOMScoreAdj.into()),
        ("selinuxLabel", text(&process.SelinuxLabel)),
    ])
}

fn mount(mount: &oci::Mount) -> Value {
    object([
        ("destination", json!(mount.destination)),
        ("type", text(&mount.type_)),
        ("source", text(&mount.source)),
        ("options", json!(mount.options)),
    ])
}

fn hooks(hooks: &oci::Hooks) -> Value {
    let list = |hooks: &[oci::Hook]| -> Value {
        let hook = |hook: &oci::Hook| {
            object([
                ("path", json!(hook.Path)),
                ("args", json!(hook.Args)),
                ("env", json!(hook.Env)),
                ("timeout", nonzero(hook.Timeout)),
            ])
        };
        hooks.iter().map(hook).collect()
    };
    object([
        ("prestart", list(&hooks.Prestart)),
        ("createRuntime", list(&hooks.CreateRuntime)),
        ("createContainer", list(&hooks.CreateContainer)),
        ("startContainer", list(&hooks.StartContainer)),
        ("poststart", list(&hooks.Poststart)),
        ("poststop", list(&hooks.Poststop)),
    ])
}

fn linux(linux: &oci::Linux) -> Value {
    let maps = |maps: &[oci::LinuxIDMapping]| -> Value {
        let map = |m: &oci::LinuxIDMapping| json!({ "hostID": m.HostID, "containerID": m.ContainerID, "size": m.Size });
        maps.iter().map(map).collect()
    };
    let namespace = |n: &oci::LinuxNamespace| object([("type", json!(n.Type)), ("path", text(&n.Path))]);
    object([
        ("uidMappings", maps(&linux.UIDMappings)),
        ("gidMappings", maps(&linux.GIDMappings)),
        ("sysctl", json!(linux.Sysctl)),
        ("resources", linux.Resources.as_ref().map_or(Value::Null, resources)),
        ("cgroupsPath", text(&linux.CgroupsPath)),
        ("namespaces", linux.Namespaces.iter().map(namespace).collect()),
        ("devices", linux.Devices.iter().map(device).collect()),
        ("seccomp", linux.Seccomp.as_ref().map_or(Value::Null, seccomp)),
        ("rootfsPropagation", text(&linux.RootfsPropagation)),
        ("maskedPaths", json!(linux.MaskedPaths)),
        ("readonlyPaths", json!(linux.ReadonlyPaths)),
        ("mountLabel", text(&linux.MountLabel)),
    ])
}

fn device(device: &oci::LinuxDevice) -> Value {
    json!({
        "path": device.Path, "type": device.Type, "major": device.Major, "minor": device.Minor,
        "fileMode": device.FileMode, "uid": device.UID, "gid": device.GID,
    })
}

fn resources(resources: &oci::LinuxResources) -> Value {
    let rule = |rule: &oci::LinuxDeviceCgroup| {
        json!({
            "allow": rule.Allow, "type": rule.Type, "major": rule.Major, "minor": rule.Minor, "access": rule.Access,
        })
    };
    let (memory, cpu) = (&resources.Memory, &resources.CPU);
    let huge = |page: &oci::LinuxHugepageLimit| json!({ "pageSize": page.Pagesize, "limit": page.Limit });
    object([
        ("devices", resources.Devices.iter().map(rule).collect()),
        (
            "memory",
            object([
                ("limit", nonzero(memory.Limit)),
                ("reservation", nonzero(memory.Reservation)),
                ("swap", nonzero(memory.Swap)),
            ]),
        ),
        (
            "cpu",
            object([
                ("shares", nonzero(cpu.Shares)),
                ("quota", nonzero(cpu.Quota)),
                ("period", nonzero(cpu.Period)),
                ("cpus", text(&cpu.Cpus)),
                ("mems", text(&cpu.Mems)),
            ]),
        ),
        ("pids", object([("limit", nonzero(resources.Pids.Limit))])),
        ("hugepageLimits", resources.HugepageLimits.iter().map(huge).collect()),
    ])
}

fn seccomp(seccomp: &oci::LinuxSeccomp) -> Value {
    let arg = |arg: &oci::LinuxSeccompArg| json!({ "index": arg.Index, "value": arg.Value, "valueTwo": arg.ValueTwo, "op": arg.Op });
    let call = |call: &oci::LinuxSyscall| {
        object([
            ("names", json!(call.Names)),
            ("action", json!(call.Action)),
            ("errnoRet", call.has_errnoret().then(|| call.errnoret()).map_or(Value::Null, Value::from)),
            ("args", call.Args.iter().map(arg).collect()),
        ])
    };
    object([
        ("defaultAction", json!(seccomp.DefaultAction)),
        ("architectures", json!(seccomp.Architectures)),
        ("flags", json!(seccomp.Flags)),
        ("syscalls", seccomp.Syscalls.iter().map(call).collect()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_written() {
        let spec = oci::Spec {
            Version: "1.0.2".into(),
            Root: Some(oci::Root { Path: "/r".into(), Readonly: true, ..oci::Root::default() }).into(),
            Mounts: vec![oci::Mount {
                destination: "/proc".into(),
                type_: "proc".into(),
                source: "proc".into(),
                ..oci::Mount::default()
            }],
            ..oci::Spec::default()
        };
        let want = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "/r", "readonly": true },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        });
        assert_eq!(config(&spec), want);
    }

    #[test]
    fn errno_zero_is_not_unset() {
        let mut call = oci::LinuxSyscall { Names: vec!["read".into()], ..oci::LinuxSyscall::default() };
        let spec = |call: &oci::LinuxSyscall| {
            seccomp(&oci::LinuxSeccomp { Syscalls: vec![call.clone()], ..oci::LinuxSeccomp::default() })
        };
        assert!(spec(&call)["syscalls"][0].get("errnoRet").is_none());
        call.set_errnoret(0);
        assert_eq!(spec(&call)["syscalls"][0]["errnoRet"], json!(0));
    }
}
