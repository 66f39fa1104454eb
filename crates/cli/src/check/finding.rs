//! What was found about one requirement.

use std::fmt;

use serde::Serialize;

/// How well a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Met.
    Ok,
    /// Sandboxes run, but slower or with less.
    Warning,
    /// Sandboxes do not run.
    Missing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` makes the column width of a caller count.
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "MISSING",
        })
    }
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is required.
    pub name: &'static str,
    /// What this machine has.
    pub found: String,
    /// Whether that is enough.
    pub verdict: Verdict,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    /// A requirement that is met.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Ok, cure: None }
    }

    /// A requirement that is met badly.
    pub fn warning(name: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Warning, cure: Some(cure.into()) }
    }

    /// A requirement that is not met.
    pub fn missing(name: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { name, found: found.into(), verdict: Verdict::Missing, cure: Some(cure.into()) }
    }
}
