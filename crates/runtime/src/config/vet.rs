//! Names and types of settings, before their meaning is looked at.

use super::{
    error::Problem,
    keys::{self, KEYS, Key, Type, Use},
    raw::Raw,
};

/// Lays `over` on `base`: tables merge, everything else replaces.
pub(super) fn merge(base: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// The settings as [`Raw`]: defaults with `settings` on top. What is wrong in name
/// or type is added to `problems` and left at its default, so that the rest can
/// still be checked.
pub(super) fn vet(settings: &toml::Table, problems: &mut Vec<Problem>) -> Raw {
    let mut table = defaults();
    walk("", settings, &mut table, problems);
    table.try_into().expect("the defaults fit Raw and walk() lets nothing else in")
}

/// Every obeyed key at its default.
fn defaults() -> toml::Table {
    let mut table = toml::Table::new();
    for key in KEYS {
        if let Use::Obeyed(value) = key.usage {
            put(&mut table, key, value.to_toml());
        }
    }
    table
}

/// Writes `value` at the place of `key`.
pub(super) fn put(table: &mut toml::Table, key: &Key, value: toml::Value) {
    let mut table = table;
    for part in key.section.split('.') {
        let entry = table.entry(part).or_insert_with(|| toml::Table::new().into());
        if !entry.is_table() {
            // The misplaced value was reported by the first check.
            *entry = toml::Table::new().into();
        }
        table = entry.as_table_mut().expect("made a table above");
    }
    table.insert(key.name.to_owned(), value);
}

/// The value at the place of `key`, if any.
pub(super) fn take<'t>(table: &'t toml::Table, key: &Key) -> Option<&'t toml::Value> {
    let mut table = table;
    for part in key.section.split('.') {
        table = table.get(part)?.as_table()?;
    }
    table.get(key.name)
}

fn walk(prefix: &str, settings: &toml::Table, out: &mut toml::Table, problems: &mut Vec<Problem>) {
    for (name, value) in settings {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match (keys::find(&path), value) {
            (Some(key), value) => match accept(key, value) {
                Ok(Some(value)) => put(out, key, value),
                Ok(None) => {}
                Err(allowed) => problems.push(Problem { path, value: value.to_string(), allowed }),
            },
            (None, toml::Value::Table(inner)) if keys::is_section(&path) => walk(&path, inner, out, problems),
            (None, toml::Value::Table(_)) => {
                let allowed = format!("no such section; there are {}", sections());
                problems.push(Problem { path, value: "{…}".into(), allowed });
            }
            (None, value) => problems.push(Problem { path, value: value.to_string(), allowed: "no such key".into() }),
        }
    }
}

/// The value to hand on, none for a key that has no effect, or what is allowed.
fn accept(key: &Key, value: &toml::Value) -> Result<Option<toml::Value>, String> {
    let value = match (key.kind, value) {
        (Type::Bool, toml::Value::Boolean(_))
        | (Type::Int, toml::Value::Integer(_))
        | (Type::Float, toml::Value::Float(_))
        | (Type::Text, toml::Value::String(_)) => value.clone(),
        (Type::Float, toml::Value::Integer(whole)) => toml::Value::Float(*whole as f64),
        (Type::List, toml::Value::Array(items)) if items.iter().all(toml::Value::is_str) => value.clone(),
        _ => return Err(format!("must be {}", key.kind.name())),
    };
    match key.usage {
        Use::Obeyed(_) | Use::Optional(_) => Ok(Some(value)),
        Use::Idle => Ok(None),
        Use::Only(values) if values.iter().any(|only| only.to_toml() == value) => Ok(None),
        Use::Only(values) => {
            let values: Vec<_> = values.iter().map(|only| only.to_toml().to_string()).collect();
            Err(format!("not supported; only {}", values.join(" or ")))
        }
    }
}

fn sections() -> String {
    let mut names: Vec<_> = KEYS.iter().map(|key| format!("[{}]", key.section)).collect();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_right_in_name_and_type() {
        let mut problems = Vec::new();
        vet(&toml::Table::new(), &mut problems);
        assert_eq!(problems, []);
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut paths: Vec<_> = KEYS.iter().map(Key::path).collect();
        paths.sort();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }

    #[test]
    fn every_wrong_name_and_type_is_reported_at_once() {
        let text = r#"
            loose = 1
            [hypervisor.qemu]
            default_memory = "many"
            default_vcpus = 2
            no_such = true
            enable_iommu = true
            enable_iommu_platform = false
            virtio_fs_extra_args = [1]
            [hypervisor.clh]
            path = "x"
            [agent.kata.mem_agent]
            memcg_swap = true
        "#;
        let mut problems = Vec::new();
        let raw = vet(&text.parse().unwrap(), &mut problems);
        let mut paths: Vec<_> = problems.iter().map(|p| p.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "hypervisor.clh",
                "hypervisor.qemu.default_memory",
                "hypervisor.qemu.enable_iommu",
                "hypervisor.qemu.no_such",
                "hypervisor.qemu.virtio_fs_extra_args",
                "loose",
            ]
        );
        assert!((raw.hypervisor.qemu.default_vcpus - 2.0).abs() < f64::EPSILON);
        assert_eq!(raw.hypervisor.qemu.default_memory, 2048);
    }

    #[test]
    fn drop_ins_change_keys_and_keep_their_neighbours() {
        let mut base: toml::Table = "[a]\nb = 1\nc = [1, 2]\n[a.d]\ne = 1".parse().unwrap();
        merge(&mut base, "[a]\nc = [3]\n[a.d]\nf = 2".parse().unwrap());
        assert_eq!(base, "[a]\nb = 1\nc = [3]\n[a.d]\ne = 1\nf = 2".parse::<toml::Table>().unwrap());
    }
}
