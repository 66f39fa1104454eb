//! Query parameters, checked.

use std::time::Duration;

use osc_api::status::{Cause, Status};

use super::target::unescape;

/// What to do with fields the schema does not know and with repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Drop them in silence.
    Ignore,
}

/// How a resource version in a list is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// This state or any later one.
    NotOlderThan,
    /// Exactly this state.
    Exact,
}

/// What happens to the dependants of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner reference and stay.
    Orphan,
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
}

impl Propagation {
    /// Reads the word used in DeleteOptions.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Orphan" => Some(Self::Orphan),
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            _ => None,
        }
    }
}

/// All parameters of a request, in order, as sent.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// More parameters than this are refused: `exec` repeats `command` once per
/// argument, nothing else comes near.
const MOST: usize = 4096;

impl Query {
    /// Takes a query string apart.
    ///
    /// # Errors
    /// 400 for broken escapes and for far too many parameters.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let pair = unescape(key, true).zip(unescape(value, true));
            pairs.push(pair.ok_or_else(|| Status::bad_request("the query string holds a broken escape"))?);
            if pairs.len() > MOST {
                return Err(Status::bad_request(format!("more than {MOST} query parameters")));
            }
        }
        Ok(Self { pairs })
    }

    /// First value of a parameter that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A switch: present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Status::bad_request(format!("query parameter {name}: {text:?} is not a whole number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Whether the request must leave no trace.
    ///
    /// # Errors
    /// 422 for values other than `All`.
    pub fn dry_run(&self) -> Result<bool, Status> {
        let mut given = false;
        for value in self.all("dryRun") {
            if value != "All" {
                return Err(invalid_option("dryRun", value, "Unsupported value", "supported values: \"All\""));
            }
            given = true;
        }
        Ok(given)
    }

    /// The `fieldValidation` parameter.
    ///
    /// # Errors
    /// 422 for unknown words.
    pub fn field_validation(&self) -> Result<FieldValidation, Status> {
        match self.get("fieldValidation") {
            None => Ok(FieldValidation::default()),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => {
                let allowed = "supported values: \"Ignore\", \"Strict\", \"Warn\"";
                Err(invalid_option("fieldValidation", other, "Unsupported value", allowed))
            }
        }
    }

    /// The `resourceVersionMatch` parameter.
    ///
    /// # Errors
    /// 422 for unknown words.
    pub fn version_match(&self) -> Result<Option<VersionMatch>, Status> {
        match self.get("resourceVersionMatch") {
            None => Ok(None),
            Some("NotOlderThan") => Ok(Some(VersionMatch::NotOlderThan)),
            Some("Exact") => Ok(Some(VersionMatch::Exact)),
            Some(other) => {
                let allowed = "supported values: \"Exact\", \"NotOlderThan\"";
                Err(invalid_option("resourceVersionMatch", other, "Unsupported value", allowed))
            }
        }
    }

    /// The resource version to start from: `None` when unset.
    ///
    /// # Errors
    /// 400 when it is none of ours.
    pub fn resource_version(&self) -> Result<Option<u64>, Status> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Status::bad_request(format!("Invalid value: {text:?}: resourceVersion is not one of this server"))
            })
        };
        self.get("resourceVersion").map(parse).transpose()
    }

    /// How long a watch may last.
    ///
    /// # Errors
    /// 400 when it is not a number.
    pub fn timeout(&self) -> Result<Option<Duration>, Status> {
        Ok(self.number("timeoutSeconds")?.map(Duration::from_secs))
    }
}

/// 422 about an option of the request.
pub fn invalid_option(field: &str, value: &str, what: &str, why: &str) -> Status {
    let reason = match what {
        "Required value" => "FieldValueRequired",
        "Unsupported value" => "FieldValueNotSupported",
        "Forbidden" => "FieldValueForbidden",
        _ => "FieldValueInvalid",
    };
    let message = match what {
        "Required value" | "Forbidden" => format!("{what}: {why}"),
        _ => format!("{what}: {value:?}: {why}"),
    };
    Status::invalid_kind("meta.k8s.io", "RequestOptions", "", [Cause::new(reason, message, field)])
}
