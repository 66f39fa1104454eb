//! A checked configuration as JSON of [`VERSION`].

use serde_json::{Map, Value, json};

use super::{Config, File, Id, Unit, VERSION};

impl Config {
    /// The configuration in the one version we write. Parsing it again yields an
    /// equal configuration.
    pub fn to_value(&self) -> Value {
        let mut out = json!({"ignition": {"version": VERSION}});
        let files: Vec<Value> =
            self.files.iter().map(|(path, file)| file_value(&path.to_string_lossy(), file)).collect();
        let units: Vec<Value> = self.units.iter().map(|(name, unit)| unit_value(name, unit)).collect();
        let mut users: Vec<Value> = Vec::new();
        let mut core = Map::new();
        if let Some(user) = &self.core {
            core.insert("name".into(), json!("core"));
            core.insert("sshAuthorizedKeys".into(), json!(user.ssh_keys));
            if let Some(hash) = &user.password_hash {
                core.insert("passwordHash".into(), json!(hash));
            }
        }
        for (name, value) in &self.first_boot {
            if let Some(field) = name.strip_prefix("passwd.users.core.") {
                core.insert(field.into(), value.clone());
            } else if let Some(user) = name.strip_prefix("passwd.users.") {
                let mut fields = value.as_object().cloned().unwrap_or_default();
                fields.insert("name".into(), json!(user));
                users.push(fields.into());
            } else if !name.starts_with("storage.files[") {
                place(&mut out, name, value.clone());
            }
        }
        if !core.is_empty() {
            core.insert("name".into(), json!("core"));
            users.push(core.into());
        }
        for (section, list, values) in
            [("storage", "files", files), ("systemd", "units", units), ("passwd", "users", users)]
        {
            if !values.is_empty() {
                out[section][list] = values.into();
            }
        }
        self.appended(&mut out);
        out
    }

    /// Puts refused `append` lists back to their files.
    fn appended(&self, out: &mut Value) {
        let Some(files) = out["storage"]["files"].as_array_mut() else { return };
        for file in files {
            let name = format!("storage.files[{}].append", file["path"].as_str().unwrap_or_default());
            if let Some(append) = self.first_boot.get(&name) {
                file["append"] = append.clone();
            }
        }
    }
}

/// Sets `section.name`, or `name` itself where there is no section.
fn place(out: &mut Value, name: &str, value: Value) {
    match name.split_once('.') {
        Some((section, name)) => out[section][name] = value,
        None => out[name] = value,
    }
}

fn file_value(path: &str, file: &File) -> Value {
    let mut out = json!({"path": path, "overwrite": true});
    if let Some(contents) = &file.contents {
        out["contents"] = json!({"source": contents.source});
        if contents.gzip {
            out["contents"]["compression"] = json!("gzip");
        }
    }
    if let Some(mode) = file.mode {
        out["mode"] = json!(mode);
    }
    for (field, id) in [("user", &file.user), ("group", &file.group)] {
        match id {
            Some(Id::Number(id)) => out[field] = json!({"id": id}),
            Some(Id::Name(name)) => out[field] = json!({"name": name}),
            None => {}
        }
    }
    out
}

fn unit_value(name: &str, unit: &Unit) -> Value {
    let mut out = json!({"name": name});
    if let Some(contents) = &unit.contents {
        out["contents"] = json!(contents);
    }
    for (field, flag) in [("enabled", unit.enabled), ("mask", unit.mask)] {
        if let Some(flag) = flag {
            out[field] = json!(flag);
        }
    }
    if !unit.dropins.is_empty() {
        out["dropins"] =
            unit.dropins.iter().map(|(name, contents)| json!({"name": name, "contents": contents})).collect();
    }
    out
}
