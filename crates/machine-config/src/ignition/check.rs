//! Raw configuration to checked configuration, all problems at once.

use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::{
    Config, Contents, Core, File, Id, IgnitionError, Problem, SUPPORTED, Unit, data_url,
    raw::{RawConfig, RawContents, RawFile, RawId, RawUnit},
};

/// Longest path component Linux takes.
const NAME_MAX: usize = 255;
/// Longest path we take; systemd and others add suffixes.
const PATH_MAX: usize = 4000;
/// Most bytes of all files of a configuration. An object of the API holds less; a
/// compressed one could unpack to a thousand times as much.
pub(super) const MOST_BYTES: usize = 64 << 20;
/// Suffixes systemd knows.
const UNIT_SUFFIXES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// Reads a configuration of any supported version. An absent or empty one says
/// nothing and is fine.
///
/// # Errors
/// [`IgnitionError`] with all problems.
pub fn parse(value: &Value) -> Result<Config, IgnitionError> {
    if value.is_null() || value.as_object().is_some_and(Map::is_empty) {
        return Ok(Config::default());
    }
    let mut check = Check::default();
    match from_value::<RawConfig>(value.clone()) {
        Ok(raw) => check.config(raw),
        Err(problem) => check.add("config", problem),
    }
    if check.problems.is_empty() { Ok(check.config) } else { Err(IgnitionError { problems: check.problems }) }
}

#[derive(Default)]
struct Check {
    config: Config,
    /// Bytes of all files so far.
    bytes: usize,
    /// Whether they are too many.
    full: bool,
    problems: Vec<Problem>,
}

impl Check {
    fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), what: what.into() });
    }

    fn take<T>(&mut self, field: &str, found: Result<T, String>) -> Option<T> {
        found.map_err(|what| self.add(field, what)).ok()
    }

    fn config(&mut self, raw: RawConfig) {
        let version = raw.ignition.version;
        if !SUPPORTED.contains(&version.as_str()) {
            let found = if version.is_empty() { "is missing".into() } else { format!("`{version}` is unknown") };
            self.add("ignition.version", format!("{found}; supported are {}", SUPPORTED.join(", ")));
            return;
        }
        for (at, file) in raw.storage.files.into_iter().enumerate() {
            self.file(&format!("storage.files[{at}]"), file);
        }
        for (at, unit) in raw.systemd.units.into_iter().enumerate() {
            self.unit(&format!("systemd.units[{at}]"), unit);
        }
        for (at, user) in raw.passwd.users.into_iter().enumerate() {
            self.user(&format!("passwd.users[{at}]"), user);
        }
        self.nesting();
        self.keep("ignition", raw.ignition.rest);
        self.keep("storage", raw.storage.rest);
        self.keep("systemd", raw.systemd.rest);
        self.keep("passwd", raw.passwd.rest);
        self.keep("", raw.rest);
    }

    /// Keeps sections nobody here understands, unless they say nothing.
    fn keep(&mut self, section: &str, rest: Map<String, Value>) {
        for (name, value) in rest {
            if !says_nothing(&value) {
                let name = if section.is_empty() { name } else { format!("{section}.{name}") };
                self.config.first_boot.insert(name, value);
            }
        }
    }

    fn file(&mut self, field: &str, value: Value) {
        let Some(raw) = self.take(field, from_value::<RawFile>(value)) else { return };
        let path = self.take(&format!("{field}.path"), host_path(&raw.path));
        if raw.filesystem.as_deref().is_some_and(|name| name != "root") {
            self.add(format!("{field}.filesystem"), "only `root` exists on a running node");
        }
        if raw.mode.is_some_and(|mode| mode > 0o777) {
            self.add(format!("{field}.mode"), "must be at most 0777 (decimal 511)");
        }
        let _ = raw.overwrite; // both values mean the same here: what is configured is what is there
        let contents = self.contents(&format!("{field}.contents"), raw.contents);
        let (user, group) =
            (self.id(&format!("{field}.user"), raw.user), self.id(&format!("{field}.group"), raw.group));
        let Some(path) = path else { return };
        if !says_nothing(&raw.append) && raw.append != json!(false) {
            self.config.first_boot.insert(format!("storage.files[{}].append", path.display()), raw.append);
        }
        let file = File { contents, mode: raw.mode, user, group };
        if self.config.files.insert(path.clone(), file).is_some() {
            self.add(format!("{field}.path"), format!("{} is there twice", path.display()));
        }
    }

    /// A path cannot be a file and have files below it.
    fn nesting(&mut self) {
        let inside = |path: &&PathBuf| path.ancestors().skip(1).any(|above| self.config.files.contains_key(above));
        let found: Vec<PathBuf> = self.config.files.keys().filter(inside).cloned().collect();
        for path in found {
            self.add("storage.files", format!("{} is below another file", path.display()));
        }
    }

    fn contents(&mut self, field: &str, raw: RawContents) -> Option<Contents> {
        let source = raw.source?;
        let gzip = match raw.compression.as_deref().unwrap_or_default() {
            "" => false,
            "gzip" => true,
            other => {
                self.add(format!("{field}.compression"), format!("`{other}` is unknown; allowed are gzip and nothing"));
                return None;
            }
        };
        let bytes = self.take(&format!("{field}.source"), data_url::decode(&source, gzip))?;
        self.bytes += bytes.len();
        if self.bytes > MOST_BYTES {
            if !self.full {
                self.add(format!("{field}.source"), format!("all files together hold more than {MOST_BYTES} bytes"));
            }
            self.full = true;
            return None;
        }
        if let Some(hash) = raw.verification.hash {
            self.take(&format!("{field}.verification.hash"), verify(&bytes, &hash));
        }
        Some(Contents { source, gzip, bytes })
    }

    fn id(&mut self, field: &str, raw: RawId) -> Option<Id> {
        match (raw.id, raw.name) {
            (Some(id), None) => Some(Id::Number(id)),
            (None, Some(name)) if !name.is_empty() => Some(Id::Name(name)),
            (None, _) => None,
            (Some(_), Some(_)) => {
                self.add(field, "takes an id or a name, not both");
                None
            }
        }
    }

    fn unit(&mut self, field: &str, value: Value) {
        let Some(raw) = self.take(field, from_value::<RawUnit>(value)) else { return };
        self.take(&format!("{field}.name"), unit_name(&raw.name));
        let mut unit = Unit {
            contents: raw.contents.filter(|text| !text.is_empty()),
            enabled: raw.enabled.or(raw.enable.filter(|enable| *enable)),
            mask: raw.mask,
            ..Unit::default()
        };
        for (at, dropin) in raw.dropins.into_iter().enumerate() {
            self.take(&format!("{field}.dropins[{at}].name"), dropin_name(&dropin.name));
            unit.dropins.insert(dropin.name, dropin.contents);
        }
        if self.config.units.insert(raw.name.clone(), unit).is_some() {
            self.add(format!("{field}.name"), format!("{} is there twice", raw.name));
        }
    }

    fn user(&mut self, field: &str, mut user: Map<String, Value>) {
        let name = user.remove("name").and_then(|name| name.as_str().map(str::to_owned));
        let Some(name) = name else { return self.add(format!("{field}.name"), "is missing") };
        if name == "core" {
            let keys = user.remove("sshAuthorizedKeys").unwrap_or_default();
            let keys = if keys.is_null() { json!([]) } else { keys };
            let password = user.remove("passwordHash").unwrap_or_default();
            let keys = self.take(&format!("{field}.sshAuthorizedKeys"), from_value(keys));
            let password = self.take(&format!("{field}.passwordHash"), from_value(password));
            if let (Some(ssh_keys), Some(password_hash)) = (keys, password) {
                self.core(field, Core { ssh_keys, password_hash });
            }
            self.keep("passwd.users.core", user);
        } else {
            self.config.first_boot.insert(format!("passwd.users.{name}"), user.into());
        }
    }

    fn core(&mut self, field: &str, core: Core) {
        if core.ssh_keys.iter().any(|key| key.contains(['\n', '\r', '\0'])) {
            self.add(format!("{field}.sshAuthorizedKeys"), "a key is one line");
        }
        if core.password_hash.as_deref().is_some_and(|hash| hash.contains(['\n', ':', '\0'])) {
            self.add(format!("{field}.passwordHash"), "holds a character no hash has");
        }
        self.config.core = Some(core);
    }
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Whether a value is empty all the way down.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An absolute path without detours.
pub(crate) fn host_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(name) if name.len() <= NAME_MAX));
    let normal: PathBuf = path.components().collect();
    if !text.starts_with('/') || text.len() > PATH_MAX || text.contains('\0') || text.ends_with('/') || !plain {
        return Err(format!("`{text}` must be the absolute path of a file without `..`"));
    }
    if text.split('/').any(|part| part == ".") || text.contains("//") {
        return Err(format!("`{text}` must be written `{}`", normal.display()));
    }
    Ok(normal)
}

fn unit_name(name: &str) -> Result<(), String> {
    let stem = name.rsplit_once('.').filter(|(stem, suffix)| !stem.is_empty() && UNIT_SUFFIXES.contains(suffix));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if stem.is_some() && name.len() <= NAME_MAX && name.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("`{name}` is no unit name; it needs a suffix systemd knows, as in `example.service`"))
}

fn dropin_name(name: &str) -> Result<(), String> {
    if name.len() > ".conf".len() && name.ends_with(".conf") && name.len() <= NAME_MAX && !name.contains(['/', '\0']) {
        return Ok(());
    }
    Err(format!("`{name}` must be a file name that ends with .conf"))
}

fn verify(bytes: &[u8], hash: &str) -> Result<(), String> {
    let found = match hash.split_once('-') {
        Some(("sha512", _)) => format!("sha512-{}", hex::encode(Sha512::digest(bytes))),
        Some(("sha256", _)) => format!("sha256-{}", hex::encode(Sha256::digest(bytes))),
        _ => return Err("must begin with sha512- or sha256-".into()),
    };
    if found.eq_ignore_ascii_case(hash) { Ok(()) } else { Err(format!("the content has {found}")) }
}
