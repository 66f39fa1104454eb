//! What the tests share.

#![allow(dead_code, reason = "each test target uses a part")]

use std::path::Path;

use bytes::Bytes;
use osc_store::{Change, Expect, Key, Options, Store};

/// A pod's key.
pub fn key(namespace: &str, name: &str) -> Key {
    Key::new("", "pods", namespace, name).unwrap()
}

/// Writes `<revision> <key>` to a key.
pub fn put(key: &Key, expect: Expect) -> Change {
    let text = key.to_string();
    Change::put(key.clone(), expect, move |revision| Bytes::from(format!("{revision} {text}")))
}

/// A history that is soon over.
pub fn small() -> Options {
    Options { history: 30, recent: 8, cache_bytes: 1 << 20, ..Options::default() }
}

/// Opens a store that must open.
pub fn open(dir: &Path, options: Options) -> Store {
    Store::open(dir, options).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// A value as text.
pub fn text(value: &Bytes) -> &str {
    std::str::from_utf8(value).unwrap()
}
