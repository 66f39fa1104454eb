//! One webhook, as its configuration describes it.

use std::time::Duration;

use osc_api::{selector::LabelSelector, status::Status};
use serde::Deserialize;
use serde_json::Value;

const SHORTEST: u64 = 1;
const LONGEST: u64 = 30;
const DEFAULT_SECONDS: u64 = 10;

/// One webhook.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub name: String,
    pub client_config: ClientConfig,
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    failure_policy: Option<String>,
    #[serde(default)]
    namespace_selector: Value,
    #[serde(default)]
    object_selector: Value,
    #[serde(default)]
    pub match_conditions: Vec<Condition>,
    #[serde(default)]
    side_effects: Option<String>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    admission_review_versions: Vec<String>,
    #[serde(default)]
    reinvocation_policy: Option<String>,
}

/// Where the webhook is, and whom to trust there.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientConfig {
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub service: Option<ServiceReference>,
    /// PEM, in base64.
    #[serde(default)]
    pub ca_bundle: Option<String>,
}

/// A service that leads to the webhook.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ServiceReference {
    pub namespace: String,
    pub name: String,
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
}

/// Which requests a webhook is asked about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub operations: Vec<String>,
    pub api_groups: Vec<String>,
    pub api_versions: Vec<String>,
    pub resources: Vec<String>,
    pub scope: Option<String>,
}

/// A CEL expression that must hold.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Condition {
    pub name: String,
    pub expression: String,
}

/// The form of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// `apiVersion` of the review.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The webhooks of a configuration.
pub(super) fn read(configuration: &Value) -> Result<Vec<Hook>, Status> {
    let Some(hooks) = configuration["webhooks"].as_array() else { return Ok(Vec::new()) };
    let broken = |error| {
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        Status::internal(format!("webhook configuration {name:?} cannot be read, correct or delete it: {error}"))
    };
    hooks.iter().map(|hook| Hook::deserialize(hook).map_err(broken)).collect()
}

impl Hook {
    /// Whether a failed call lets the request pass.
    pub fn ignores_failure(&self) -> bool {
        self.failure_policy.as_deref() == Some("Ignore")
    }

    /// Whether it is called again when others changed the object after it.
    pub fn wants_another_look(&self) -> bool {
        self.reinvocation_policy.as_deref() == Some("IfNeeded")
    }

    /// Whether it may be asked about requests that will not be carried out.
    pub fn allows_dry_run(&self) -> bool {
        matches!(self.side_effects.as_deref(), Some("None" | "NoneOnDryRun"))
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(DEFAULT_SECONDS).clamp(SHORTEST, LONGEST))
    }

    /// The first of the versions it lists that is spoken here.
    pub fn version(&self) -> Option<Version> {
        self.admission_review_versions.iter().find_map(|version| match version.as_str() {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        })
    }

    /// Which namespaces it looks at.
    pub fn namespaces(&self) -> Result<LabelSelector, Status> {
        self.selector(&self.namespace_selector)
    }

    /// Which objects it looks at.
    pub fn objects(&self) -> Result<LabelSelector, Status> {
        self.selector(&self.object_selector)
    }

    fn selector(&self, selector: &Value) -> Result<LabelSelector, Status> {
        if selector.is_null() {
            return Ok(LabelSelector::everything());
        }
        LabelSelector::from_object(selector)
            .map_err(|error| Status::internal(format!("selector of webhook {:?}: {error}", self.name)))
    }
}
