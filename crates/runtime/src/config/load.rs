//! Which files make up the configuration, and what the host can give.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use super::{
    check::check,
    error::ConfigError,
    types::{Config, Mib},
    vet::{merge, vet},
};
use crate::dirs::Dirs;

/// What bounds the size of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Processors online; not what the caller's own cgroup allows.
    pub cpus: u32,
    /// Physical memory.
    pub memory: Mib,
    /// Where the guest image is installed.
    pub guest: PathBuf,
}

impl Host {
    /// This host, with the guest image of `dirs`.
    pub fn observe(dirs: &Dirs) -> Self {
        let number = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let bytes = number(SysconfVar::_PHYS_PAGES).saturating_mul(number(SysconfVar::PAGE_SIZE));
        Self {
            cpus: u32::try_from(number(SysconfVar::_NPROCESSORS_ONLN)).unwrap_or(1).max(1),
            memory: Mib(bytes >> 20),
            guest: dirs.guest(),
        }
    }
}

impl Config {
    /// Finds, merges and checks the configuration. Blocking.
    ///
    /// `explicit` comes from the engine's Create option and wins over `variable`, the
    /// value of `KATA_CONF_FILE`, which must resolve to a file in an installed
    /// place. Without either, the first file of [`Dirs::configurations`] is taken, and
    /// when none exists the built-in defaults hold. `config.d/*.toml` beside the
    /// file is merged over it in name order.
    ///
    /// # Errors
    /// A file named but missing or unreadable, no TOML, or wrong settings, all of
    /// them at once.
    pub fn load(explicit: Option<&Path>, variable: Option<&Path>, dirs: &Dirs) -> Result<Self, ConfigError> {
        let mut files = Vec::new();
        if let Some(file) = choose(explicit, variable, dirs)? {
            files.push(file.clone());
            files.extend(drop_ins(&file)?);
        }
        let mut settings = toml::Table::new();
        for path in &files {
            merge(&mut settings, parse(path)?);
        }
        Self::from_settings(settings, files, Host::observe(dirs))
    }

    /// Checks `settings` for a host.
    pub(super) fn from_settings(settings: toml::Table, files: Vec<PathBuf>, host: Host) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let raw = vet(&settings, &mut problems);
        let (hypervisor, agent, runtime) = check(raw, &host, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { files, problems });
        }
        Ok(Self { hypervisor, agent, runtime, settings, files, host })
    }

    /// The configuration `text` makes on `host`, without looking at any file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn for_host(text: &str, host: Host) -> Result<Self, ConfigError> {
        let settings = text.parse();
        let settings = settings.map_err(|e| ConfigError::Syntax { path: PathBuf::new(), source: Box::new(e) })?;
        Self::from_settings(settings, Vec::new(), host)
    }

    /// The files this configuration was read from, in order of merging.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn choose(explicit: Option<&Path>, variable: Option<&Path>, dirs: &Dirs) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = explicit {
        return resolve(path).map(Some);
    }
    if let Some(path) = variable {
        let path = resolve(path)?;
        let allowed = installed_places(dirs);
        let inside = |dir: &PathBuf| fs::canonicalize(dir).is_ok_and(|dir| path.starts_with(dir));
        if !allowed.iter().any(inside) {
            return Err(ConfigError::Foreign { path, allowed });
        }
        return Ok(Some(path));
    }
    // Resolved, so that drop-ins are looked for beside the real file.
    dirs.configurations().iter().find(|path| path.exists()).map(|path| resolve(path)).transpose()
}

/// Directories that hold installed configurations, one per variant of the runtime.
fn installed_places(dirs: &Dirs) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    for file in dirs.configurations() {
        let Some(dir) = file.parent() else { continue };
        let dir = if dir.ends_with("runtime-rs") { dir.parent().unwrap_or(dir) } else { dir };
        if !places.iter().any(|known| known == dir) {
            places.push(dir.to_owned());
        }
    }
    places
}

fn resolve(path: &Path) -> Result<PathBuf, ConfigError> {
    fs::canonicalize(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), source },
    })
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = file.with_file_name("config.d");
    let failed = |source| ConfigError::Read { path: dir.clone(), source };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn parse(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::canonicalize(path).unwrap()
    }

    fn memory(mib: u32) -> String {
        format!("[hypervisor.qemu]\ndefault_memory = {mib}\n")
    }

    #[test]
    fn files_are_looked_up_in_order() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path());
        let load = |explicit, variable| Config::load(explicit, variable, &dirs).map(|c| c.hypervisor.memory.0);
        assert_eq!(load(None, None).unwrap(), 2048, "built-in");
        write(root.path(), "usr/share/defaults/kata-containers/configuration.toml", &memory(301));
        assert_eq!(load(None, None).unwrap(), 301);
        write(root.path(), "etc/kata-containers/configuration.toml", &memory(302));
        assert_eq!(load(None, None).unwrap(), 302);
        write(root.path(), "etc/kata-containers/runtime-rs/configuration.toml", &memory(303));
        assert_eq!(load(None, None).unwrap(), 303);
        let named = write(root.path(), "usr/share/defaults/kata-containers/configuration-small.toml", &memory(304));
        assert_eq!(load(None, Some(&named)).unwrap(), 304);
        let outside = write(root.path(), "elsewhere.toml", &memory(305));
        assert!(matches!(load(None, Some(&outside)), Err(ConfigError::Foreign { .. })));
        assert_eq!(load(Some(&outside), Some(&named)).unwrap(), 305);
        let gone = root.path().join("gone.toml");
        assert!(matches!(load(Some(&gone), None), Err(ConfigError::Missing { .. })));
    }

    #[test]
    fn a_link_out_of_the_installed_places_is_foreign() {
        let root = tempfile::tempdir().unwrap();
        let outside = write(root.path(), "elsewhere.toml", &memory(305));
        let link = root.path().join("etc/kata-containers/link.toml");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside, &link).unwrap();
        let error = Config::load(None, Some(&link), &Dirs::new(root.path())).unwrap_err();
        assert!(matches!(error, ConfigError::Foreign { .. }), "{error}");
    }

    #[test]
    fn drop_ins_are_merged_in_name_order() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "etc/kata-containers/configuration.toml", &memory(300));
        write(root.path(), "etc/kata-containers/config.d/20-b.toml", &memory(320));
        write(root.path(), "etc/kata-containers/config.d/10-a.toml", &memory(310));
        write(root.path(), "etc/kata-containers/config.d/30-c.toml", "[runtime]\nenable_debug = true\n");
        write(root.path(), "etc/kata-containers/config.d/40-d.off", &memory(340));
        let config = Config::load(None, None, &Dirs::new(root.path())).unwrap();
        assert_eq!((config.hypervisor.memory, config.runtime.debug), (Mib(320), true));
        assert_eq!(config.files().len(), 4);
    }

    #[test]
    fn broken_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        let path = write(root.path(), "etc/kata-containers/configuration.toml", "[hypervisor");
        let error = Config::load(None, None, &Dirs::new(root.path())).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
