//! containerd: an imported file replaces the whole table of each plugin it
//! mentions, so a drop-in has to carry the table of the base with it. Where the
//! base imports nothing, the base itself is edited.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{EngineError, Runtime};
use crate::daemon::{
    host::{Entry, Host, HostError},
    record,
};

/// Sorts after what administrators usually call theirs: the last import wins.
const FILE_NAME: &str = "99-kata.toml";

/// Table with the log level.
const LOGGING: &str = "debug";

/// What containerd is configured with, ours left out.
pub(super) struct Base {
    /// The main file, as a path of the node.
    config: PathBuf,
    text: String,
    /// Where our drop-in goes.
    drop_in: PathBuf,
    /// `drop_in` as containerd sees it.
    real_drop_in: PathBuf,
    /// Files the main file imports, in order.
    imported: Vec<(PathBuf, String)>,
}

impl Base {
    pub(super) fn read(
        host: &Host,
        config: &Path,
        drop_ins: &Path,
        base: &dyn Fn(&Path) -> Result<Entry, HostError>,
    ) -> Result<Self, EngineError> {
        let text = text_of(base(config)?, config)?;
        let drop_in = drop_ins.join(FILE_NAME);
        let mut base =
            Self { config: config.into(), text, real_drop_in: host.real(&drop_in), drop_in, imported: Vec::new() };
        let real_config = host.real(config);
        for pattern in imports(&parse(config, &base.text)?) {
            for path in matching(&real_config, &pattern) {
                if path != base.real_drop_in {
                    let text = fs::read_to_string(&path).unwrap_or_default(); // containerd will complain itself
                    base.imported.push((path, text));
                }
            }
        }
        Ok(base)
    }

    fn imports_drop_in(&self, main: &Table, host_config: &Path) -> bool {
        imports(main).iter().any(|pattern| {
            let pattern = absolute(host_config, pattern);
            pattern.parent() == self.real_drop_in.parent() && name_matches(&pattern, &self.real_drop_in)
        })
    }

    /// The main file as containerd sees it, found from where its drop-in is.
    fn real_config(&self) -> PathBuf {
        let drop_in = self.real_drop_in.to_string_lossy();
        let prefix = drop_in.strip_suffix(&*self.drop_in.to_string_lossy()).unwrap_or_default();
        PathBuf::from(format!("{prefix}{}", self.config.display()))
    }
}

fn text_of(entry: Entry, path: &Path) -> Result<String, EngineError> {
    match entry {
        Entry::Absent => Ok(String::new()),
        Entry::File { bytes, .. } => String::from_utf8(bytes).map_err(|_| shape(path, "it is not UTF-8; correct it")),
        Entry::Link { .. } => Err(shape(path, "it is a symbolic link; make it a file")),
    }
}

fn shape(path: &Path, problem: &str) -> EngineError {
    EngineError::Shape { path: path.to_owned(), problem: problem.into() }
}

fn parse(path: &Path, text: &str) -> Result<Table, EngineError> {
    text.parse().map_err(|source| EngineError::Toml { path: path.to_owned(), source: Box::new(source) })
}

fn imports(main: &Table) -> Vec<String> {
    let list = main.get("imports").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn absolute(config: &Path, pattern: &str) -> PathBuf {
    config.parent().unwrap_or(Path::new("/")).join(pattern)
}

/// Files a pattern stands for; a star in the last component is understood.
fn matching(config: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = absolute(config, pattern);
    let Some(dir) = pattern.parent() else { return Vec::new() };
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| name_matches(&pattern, path))
        .collect();
    found.sort();
    found
}

fn name_matches(pattern: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (pattern, name) = (name(pattern), name(path));
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail),
    }
}

/// Name of the plugin that has the runtimes, by version of the configuration.
fn plugin(path: &Path, main: &Table) -> Result<(i64, &'static str), EngineError> {
    let version = match main.get("version").map(Value::as_integer) {
        None if main.contains_key("plugins") => 1,
        None => 2,
        Some(Some(version)) => version,
        Some(None) => return Err(shape(path, "`version` must be a number")),
    };
    let plugin = match version {
        1 => "cri",
        2 => "io.containerd.grpc.v1.cri",
        3 => "io.containerd.cri.v1.runtime",
        other => return Err(shape(path, &format!("version {other} is unknown; known are 1, 2 and 3"))),
    };
    Ok((version, plugin))
}

/// The file to write and its content.
pub(super) fn offer(base: &Base, runtime: &Runtime) -> Result<(PathBuf, String), EngineError> {
    let main = parse(&base.config, &base.text)?;
    let (version, plugin) = plugin(&base.config, &main)?;
    if version == 1 || !base.imports_drop_in(&main, &base.real_config()) {
        return edited(base, main, plugin, runtime).map(|text| (base.config.clone(), text));
    }
    let mut table = section(&main, plugin);
    for (path, text) in &base.imported {
        let imported = parse(path, text)?;
        if let Some(theirs) = imported.get("plugins").and_then(|plugins| plugins.get(plugin)) {
            if path > &base.real_drop_in {
                return Err(shape(path, &format!("it comes after {FILE_NAME} and would hide it; rename it")));
            }
            table = theirs.as_table().cloned().unwrap_or_default();
        }
    }
    insert(&base.config, &mut table, runtime)?;
    let plugins = Table::from_iter([(plugin.to_owned(), Value::Table(table))]);
    let mut out = Table::from_iter([("version".into(), version.into()), ("plugins".into(), plugins.into())]);
    log_at(&base.config, &mut out, runtime)?;
    Ok((base.drop_in.clone(), format!("# Written by machine-config-daemon; changes are undone.\n{out}")))
}

fn section(main: &Table, plugin: &str) -> Table {
    let table = main.get("plugins").and_then(|plugins| plugins.get(plugin)).and_then(Value::as_table);
    table.cloned().unwrap_or_default()
}

/// The main file with the runtime in it. Comments stay if the runtime can simply
/// be appended.
fn edited(base: &Base, mut main: Table, plugin: &str, runtime: &Runtime) -> Result<String, EngineError> {
    let unversioned = plugin.contains('.') && !main.contains_key("version");
    if unversioned {
        main.insert("version".into(), 2.into());
    }
    let mut table = section(&main, plugin);
    insert(&base.config, &mut table, runtime)?;
    let plugins = main.entry("plugins").or_insert_with(|| Table::new().into());
    let plugins = plugins.as_table_mut().ok_or_else(|| shape(&base.config, "`plugins` must be a table"))?;
    plugins.insert(plugin.to_owned(), table.into());
    let level = match &runtime.log_level {
        Some(level) if !main.contains_key(LOGGING) => format!("[{LOGGING}]\nlevel = {level:?}\n"),
        _ => String::new(),
    };
    log_at(&base.config, &mut main, runtime)?;
    let body = kata(runtime).to_string();
    let (fields, options) = body.split_once("[options]").unwrap_or((&body, ""));
    let path = if plugin.contains('.') { format!("plugins.{plugin:?}") } else { format!("plugins.{plugin}") };
    let version = if unversioned { "version = 2\n" } else { "" };
    let appended = format!(
        "{version}{}\n# Added by machine-config-daemon; changes are undone.\n[{path}.containerd.runtimes.kata]\n\
         {fields}[{path}.containerd.runtimes.kata.options]{options}{level}",
        base.text
    );
    if appended.parse::<Table>().is_ok_and(|parsed| parsed == main) {
        return Ok(appended);
    }
    Ok(format!("# Rewritten by machine-config-daemon; the original is kept below {}.\n{main}", record::DIRECTORY))
}

/// Sets the log level. containerd merges this table with that of the base.
fn log_at(path: &Path, config: &mut Table, runtime: &Runtime) -> Result<(), EngineError> {
    let Some(level) = &runtime.log_level else { return Ok(()) };
    let table = config.entry(LOGGING).or_insert_with(|| Table::new().into());
    let table = table.as_table_mut().ok_or_else(|| shape(path, &format!("`{LOGGING}` must be a table")))?;
    table.insert("level".into(), level.as_str().into());
    Ok(())
}

/// Adds the runtime to the table of the plugin.
fn insert(path: &Path, plugin: &mut Table, runtime: &Runtime) -> Result<(), EngineError> {
    let mut table = plugin;
    for name in ["containerd", "runtimes"] {
        let next = table.entry(name).or_insert_with(|| Table::new().into());
        table = next.as_table_mut().ok_or_else(|| shape(path, &format!("`{name}` must be a table")))?;
    }
    table.insert("kata".into(), kata(runtime).into());
    Ok(())
}

fn kata(runtime: &Runtime) -> Table {
    let text = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let annotations = || Value::from(vec!["io.katacontainers.*"]);
    Table::from_iter([
        ("runtime_type".to_owned(), Value::from("io.containerd.kata.v2")),
        ("runtime_path".to_owned(), text(&runtime.shim)),
        // A privileged container is privileged in its VM: no host device follows it.
        ("privileged_without_host_devices".to_owned(), true.into()),
        ("pod_annotations".to_owned(), annotations()),
        ("container_annotations".to_owned(), annotations()),
        ("options".to_owned(), Table::from_iter([("ConfigPath".to_owned(), text(&runtime.config))]).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRI: &str = "io.containerd.grpc.v1.cri";

    fn offered(files: &[(&str, &str)], managed: bool) -> Result<(PathBuf, Table, String), EngineError> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ROOT", &dir.path().display().to_string())).unwrap();
        }
        let host = Host::new(dir.path());
        let (config, drop_ins) = (Path::new("/etc/containerd/config.toml"), Path::new("/etc/containerd/conf.d"));
        let read = |path: &Path| host.read(&if managed { record::original(path) } else { path.to_owned() });
        let base = Base::read(&host, config, drop_ins, &read)?;
        let (path, text) = offer(
            &base,
            &Runtime { shim: "/p/shim".into(), config: "/p/c.toml".into(), log_level: Some("trace".into()) },
        )?;
        Ok((path, text.parse().unwrap(), text))
    }

    fn shim(table: &Table, plugin: &str) -> Option<String> {
        let kata = table.get("plugins")?.get(plugin)?.get("containerd")?.get("runtimes")?.get("kata")?;
        assert_eq!(kata["options"]["ConfigPath"].as_str(), Some("/p/c.toml"));
        assert_eq!(table["debug"]["level"].as_str(), Some("trace"));
        Some(kata["runtime_path"].as_str()?.to_owned())
    }

    #[test]
    fn a_drop_in_carries_the_whole_table_of_the_base() {
        let config = "version = 2\nimports = [\"ROOT/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"\n\
                      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"r\"\n[plugins.other]\nx = 1\n";
        let (path, table, _) = offered(&[("etc/containerd/config.toml", config)], false).unwrap();
        assert_eq!(path, Path::new("/etc/containerd/conf.d/99-kata.toml"));
        assert_eq!(shim(&table, CRI).as_deref(), Some("/p/shim"));
        assert_eq!(table["plugins"][CRI]["sandbox_image"].as_str(), Some("pause"));
        assert_eq!(table["plugins"][CRI]["containerd"]["runtimes"]["runc"]["runtime_type"].as_str(), Some("r"));
        assert!(table["plugins"].get("other").is_none(), "other plugins keep their tables");
    }

    #[test]
    fn an_earlier_import_is_the_base_and_a_later_one_is_refused() {
        let config = ("etc/containerd/config.toml", "version = 2\nimports = [\"conf.d/*.toml\"]\n");
        let theirs = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"theirs\"\n";
        let ours_before = (
            "etc/containerd/conf.d/99-kata.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"stale\"\n",
        );
        let (_, table, _) =
            offered(&[config, ("etc/containerd/conf.d/10-a.toml", theirs), ours_before], false).unwrap();
        assert_eq!(table["plugins"][CRI]["sandbox_image"].as_str(), Some("theirs"));
        let error = offered(&[config, ("etc/containerd/conf.d/zz.toml", theirs)], false).unwrap_err();
        assert!(error.to_string().contains("zz.toml"), "{error}");
    }

    #[test]
    fn without_imports_the_main_file_is_edited_and_keeps_its_comments() {
        let config = "version = 2 # two\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n";
        let (path, table, text) = offered(&[("etc/containerd/config.toml", config)], false).unwrap();
        assert_eq!(path, Path::new("/etc/containerd/config.toml"));
        assert!(text.starts_with(config), "{text}");
        assert_eq!(shim(&table, CRI).as_deref(), Some("/p/shim"));
        assert_eq!(table["plugins"][CRI]["cni"]["bin_dir"].as_str(), Some("/usr/lib/cni"));
        // Once edited, the kept original is the base, else it would be added twice.
        let files = [
            ("etc/containerd/config.toml", text.as_str()),
            ("etc/machine-config-daemon/orig/etc/containerd/config.toml.mcdorig", config),
        ];
        assert_eq!(offered(&files, true).unwrap().2, text);
    }

    #[test]
    fn every_shape_of_main_file_is_handled() {
        let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"x\" } }\n";
        let existing =
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\nruntime_path = \"/old\"\n";
        for (text, plugin) in [
            ("", CRI),
            ("version = 2\n", CRI),
            ("root = \"/x\"\n", CRI),
            ("version = 2\n[debug]\nlevel = \"info\"\naddress = \"/d\"\n", CRI),
            (inline, CRI),
            (existing, CRI),
            ("version = 3\n", "io.containerd.cri.v1.runtime"),
            ("[plugins.cri]\nx = 1\n", "cri"),
        ] {
            let (_, table, written) = offered(&[("etc/containerd/config.toml", text)], false).unwrap();
            assert_eq!(shim(&table, plugin).as_deref(), Some("/p/shim"), "{text}: {written}");
        }
        assert!(shim(&offered(&[], false).unwrap().1, CRI).is_some(), "no main file at all");
        for text in ["version = 9", "version = \"2\"", "version = [", "version = 2\nplugins = 1\n"] {
            assert!(offered(&[("etc/containerd/config.toml", text)], false).is_err(), "{text}");
        }
    }

    /// The runtimes containerd itself finds in a configuration.
    fn as_containerd_sees_it(dir: &Path) -> Table {
        let output = std::process::Command::new("containerd")
            .arg("--config")
            .arg(dir.join("etc/containerd/config.toml"))
            .args(["config", "dump"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let dump: Table = String::from_utf8_lossy(&output.stdout).parse().unwrap();
        assert_eq!(dump["debug"]["level"].as_str(), Some("trace"));
        dump["plugins"][CRI].as_table().unwrap().clone()
    }

    #[test]
    fn containerd_itself_keeps_the_base_and_finds_the_runtime() {
        for imports in ["imports = [\"ROOT/etc/containerd/conf.d/*.toml\"]\n", ""] {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::new(dir.path());
            let config = Path::new("/etc/containerd/config.toml");
            let text = format!(
                "version = 2\n{imports}[plugins.\"{CRI}\"]\nsandbox_image = \"theirs\"\n\
                 [plugins.\"{CRI}\".containerd.runtimes.other]\nruntime_type = \"io.containerd.runc.v2\"\n"
            );
            let text = text.replace("ROOT", &dir.path().display().to_string());
            host.put(config, &Entry::file(text, 0o644)).unwrap();
            let base = Base::read(&host, config, Path::new("/etc/containerd/conf.d"), &|path| host.read(path)).unwrap();
            let (path, text) = offer(
                &base,
                &Runtime { shim: "/p/shim".into(), config: "/p/c.toml".into(), log_level: Some("trace".into()) },
            )
            .unwrap();
            assert_eq!(path == config, imports.is_empty());
            host.put(&path, &Entry::file(text, 0o644)).unwrap();
            let seen = as_containerd_sees_it(dir.path());
            assert_eq!(seen["sandbox_image"].as_str(), Some("theirs"));
            let runtimes = &seen["containerd"]["runtimes"];
            assert_eq!(runtimes["other"]["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
            assert_eq!(runtimes["kata"]["runtime_path"].as_str(), Some("/p/shim"));
            assert_eq!(runtimes["kata"]["options"]["ConfigPath"].as_str(), Some("/p/c.toml"));
            assert_eq!(runtimes["kata"]["privileged_without_host_devices"].as_bool(), Some(true));
        }
    }
}
