//! Later configurations win: files by path, units and users by name.

use super::{Config, Core, File, Unit};

/// Lays `later` over `earlier`. Fields `later` does not mention keep their value;
/// SSH keys are united.
pub fn merge(mut earlier: Config, later: Config) -> Config {
    for (path, file) in later.files {
        let slot = earlier.files.entry(path).or_default();
        *slot = over_file(std::mem::take(slot), file);
    }
    for (name, unit) in later.units {
        let slot = earlier.units.entry(name).or_default();
        *slot = over_unit(std::mem::take(slot), unit);
    }
    earlier.core = match (earlier.core, later.core) {
        (Some(first), Some(second)) => Some(over_core(first, second)),
        (first, second) => second.or(first),
    };
    earlier.first_boot.extend(later.first_boot);
    earlier
}

/// Content and its compression go together: a later plain content is not taken
/// for a compressed one.
fn over_file(earlier: File, later: File) -> File {
    File {
        contents: later.contents.or(earlier.contents),
        mode: later.mode.or(earlier.mode),
        user: later.user.or(earlier.user),
        group: later.group.or(earlier.group),
    }
}

fn over_unit(earlier: Unit, later: Unit) -> Unit {
    let mut dropins = earlier.dropins;
    dropins.extend(later.dropins);
    Unit {
        contents: later.contents.or(earlier.contents),
        enabled: later.enabled.or(earlier.enabled),
        mask: later.mask.or(earlier.mask),
        dropins,
    }
}

fn over_core(earlier: Core, later: Core) -> Core {
    let mut ssh_keys = earlier.ssh_keys;
    for key in later.ssh_keys {
        if !ssh_keys.contains(&key) {
            ssh_keys.push(key);
        }
    }
    Core { ssh_keys, password_hash: later.password_hash.or(earlier.password_hash) }
}
