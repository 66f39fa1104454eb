use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Config {
    parse(&value).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn with(section: &str, list: &str, item: Value) -> Value {
    let mut out = json!({"ignition": {"version": "3.2.0"}});
    out[section][list] = json!([item]);
    out
}

fn gzip(bytes: &[u8]) -> String {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut writer, bytes).expect("memory");
    data_url(&writer.finish().expect("memory"))
}

fn file(path: &str, source: &str) -> Value {
    json!({"path": path, "contents": {"source": source}})
}

#[test]
fn what_peer_pods_write_in_version_2_2_is_understood() {
    let config = read(json!({
        "ignition": {"version": "2.2.0", "config": {}, "security": {"tls": {}}, "timeouts": {}},
        "networkd": {}, "passwd": {},
        "storage": {"files": [{"filesystem": "root", "path": "/etc/a", "mode": 420, "append": false,
            "contents": {"source": "data:,x", "verification": {}}, "user": {"id": 5}, "group": {"name": "g"}}]},
        "systemd": {"units": [{"name": "a.service", "enable": true, "contents": "[Unit]"}]}}));
    let file = &config.files[Path::new("/etc/a")];
    assert_eq!(file.contents.as_ref().unwrap().bytes, b"x");
    assert_eq!((file.mode, &file.user, &file.group), (Some(0o644), &Some(Id::Number(5)), &Some(Id::Name("g".into()))));
    assert_eq!(config.units["a.service"].enabled, Some(true));
    assert!(config.first_boot.is_empty(), "{:?}", config.first_boot);
}

#[test]
fn every_supported_version_is_read_and_any_other_is_refused_with_the_list() {
    for version in SUPPORTED {
        assert_eq!(read(json!({"ignition": {"version": version}})), Config::default());
    }
    for value in [json!({"ignition": {"version": "3.9.0"}}), json!({"ignition": {}}), json!({"storage": {}})] {
        let error = parse(&value).unwrap_err().to_string();
        assert!(error.contains("supported are 2.2.0, 3.0.0"), "{error}");
    }
    assert_eq!(read(Value::Null), Config::default());
    assert_eq!(read(json!({})), Config::default());
}

#[test]
fn mistakes_are_named_with_their_field() {
    let files = |item| with("storage", "files", item);
    let units = |item| with("systemd", "units", item);
    for (value, field) in [
        (files(json!({"path": "etc/x"})), "storage.files[0].path"),
        (files(json!({"path": "/etc/../x"})), "storage.files[0].path"),
        (files(json!({"path": "/etc/x/"})), "storage.files[0].path"),
        (files(json!({"path": "/etc//x"})), "storage.files[0].path"),
        (files(json!({"path": "/"})), "storage.files[0].path"),
        (files(json!({"path": "/x", "mode": 2541})), "storage.files[0].mode"),
        (files(json!({"path": "/x", "filesystem": "data"})), "storage.files[0].filesystem"),
        (files(json!({"path": "/x", "colour": 1})), "storage.files[0]"),
        (files(json!({"path": "/x", "user": {"id": 1, "name": "a"}})), "storage.files[0].user"),
        (files(file("/x", "http://a/b")), "storage.files[0].contents.source"),
        (
            files(json!({"path": "/x", "contents": {"source": "data:,", "compression": "zip"}})),
            "storage.files[0].contents.compression",
        ),
        (
            files(json!({"path": "/x", "contents": {"source": "data:,", "verification": {"hash": "sha512-0"}}})),
            "storage.files[0].contents.verification.hash",
        ),
        (units(json!({"name": "a"})), "systemd.units[0].name"),
        (units(json!({"name": "../a.service"})), "systemd.units[0].name"),
        (units(json!({"name": "a.service", "dropins": [{"name": "x"}]})), "systemd.units[0].dropins[0].name"),
        (units(json!({"name": "a.service", "dropins": [{"name": "../x.conf"}]})), "systemd.units[0].dropins[0].name"),
        (
            with("passwd", "users", json!({"name": "core", "sshAuthorizedKeys": ["a\nb"]})),
            "passwd.users[0].sshAuthorizedKeys",
        ),
        (json!([]), "config"),
    ] {
        let problems = parse(&value).err().map(|error| error.problems).unwrap_or_default();
        assert!(problems.iter().any(|problem| problem.field == field), "{value}: {problems:?}");
    }
}

#[test]
fn a_path_twice_is_a_mistake_and_all_mistakes_come_at_once() {
    let value = json!({"ignition": {"version": "3.2.0"},
        "storage": {"files": [file("/a", "data:,"), file("/a", "data:,"), {"path": "b"}]}});
    let problems = parse(&value).unwrap_err().problems;
    assert_eq!(
        problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(),
        ["storage.files[1].path", "storage.files[2].path"]
    );
}

#[test]
fn a_file_cannot_have_files_below_it() {
    let value = json!({"ignition": {"version": "3.2.0"},
        "storage": {"files": [file("/a/b/c", "data:,"), file("/a", "data:,"), file("/ab", "data:,")]}});
    let problems = parse(&value).unwrap_err().problems;
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["storage.files: /a/b/c is below another file"]
    );
}

#[test]
fn many_compressed_files_cannot_grow_without_bound_together() {
    let large = gzip(&vec![0; 16 << 20]);
    let bomb = |at| json!({"path": format!("/f{at}"), "contents": {"source": large, "compression": "gzip"}});
    let files = |count| json!({"ignition": {"version": "3.2.0"}, "storage": {"files": (0..count).map(bomb).collect::<Vec<_>>()}});
    assert!(files(10).to_string().len() < crate::render::MAX_BYTES, "an object of the API could hold it");
    assert_eq!(read(files(4)).files.len(), 4);
    let problems = parse(&files(10)).unwrap_err().problems;
    assert_eq!(problems.len(), 1, "told once: {problems:?}");
    assert!(problems[0].what.contains("all files together"), "{problems:?}");
}

#[test]
fn sections_for_the_first_boot_are_kept_by_name() {
    let config = read(json!({"ignition": {"version": "3.4.0"}, "kernelArguments": {"shouldExist": ["a"]},
        "storage": {"links": [{"path": "/l"}], "disks": [], "files": [{"path": "/f", "append": [{"source": "data:,x"}]}]},
        "passwd": {"users": [{"name": "bob"}, {"name": "core", "uid": 7, "sshAuthorizedKeys": ["k"]}], "groups": [{"name": "g"}]}}));
    let names: Vec<_> = config.first_boot.keys().map(String::as_str).collect();
    let want = [
        "kernelArguments",
        "passwd.groups",
        "passwd.users.bob",
        "passwd.users.core.uid",
        "storage.files[/f].append",
        "storage.links",
    ];
    assert_eq!(names, want);
    assert_eq!(config.core.as_ref().unwrap().ssh_keys, ["k"]);
    assert_eq!(parse(&config.to_value()).as_ref(), Ok(&config), "written and read again");
}

#[test]
fn row_2_of_two_files_with_one_path_the_later_wins() {
    let earlier = read(with(
        "storage",
        "files",
        json!({"path": "/a", "mode": 384,
        "contents": {"source": gzip(b"a"), "compression": "gzip"}}),
    ));
    assert_eq!(earlier.files[Path::new("/a")].contents.as_ref().unwrap().bytes, b"a");
    let later = read(with("storage", "files", file("/a", "data:,b")));
    let merged = merge(earlier, later);
    let file = &merged.files[Path::new("/a")];
    let contents = file.contents.as_ref().unwrap();
    assert_eq!((contents.bytes.as_slice(), contents.gzip, file.mode), (&b"b"[..], false, Some(0o600)));
    assert_eq!(merged.to_value()["storage"]["files"][0]["overwrite"], true);
}

#[test]
fn units_dropins_and_keys_are_merged_by_name() {
    let earlier = read(json!({"ignition": {"version": "3.2.0"},
        "systemd": {"units": [{"name": "a.service", "contents": "one", "enabled": true,
            "dropins": [{"name": "1.conf", "contents": "x"}, {"name": "2.conf", "contents": "x"}]}]},
        "passwd": {"users": [{"name": "core", "passwordHash": "h", "sshAuthorizedKeys": ["k1", "k2"]}]}}));
    let later = read(json!({"ignition": {"version": "3.2.0"},
        "systemd": {"units": [{"name": "a.service", "enabled": false, "dropins": [{"name": "2.conf", "contents": "y"}]},
            {"name": "b.socket", "mask": true}]},
        "passwd": {"users": [{"name": "core", "sshAuthorizedKeys": ["k2", "k3"]}]}}));
    let merged = merge(earlier, later);
    let unit = &merged.units["a.service"];
    assert_eq!((unit.contents.as_deref(), unit.enabled), (Some("one"), Some(false)));
    assert_eq!(unit.dropins.values().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(merged.units["b.socket"].mask, Some(true));
    let core = merged.core.clone().unwrap();
    assert_eq!(
        (core.ssh_keys, core.password_hash.as_deref()),
        (vec!["k1".into(), "k2".into(), "k3".into()], Some("h"))
    );
    assert_eq!(parse(&merged.to_value()).as_ref(), Ok(&merged), "written and read again");
}
