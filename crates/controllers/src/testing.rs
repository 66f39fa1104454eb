//! Objects for tests, written as JSON.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An object of any kind.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("test object")
}

/// A pod; a missing spec gets one container.
pub(crate) fn pod(mut value: Value) -> Pod {
    if value.get("metadata").is_none() {
        value["metadata"] = json!({"name": "p"});
    }
    if value["spec"]["containers"].is_null() {
        value["spec"]["containers"] = json!([{"name": "c"}]);
    }
    object(value)
}

pub(crate) fn timestamp(text: &str) -> Timestamp {
    text.parse().expect("test time")
}

pub(crate) fn time(text: &str) -> Time {
    Time(timestamp(text))
}
