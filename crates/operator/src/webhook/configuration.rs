//! The object that makes the API ask us.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::json;

/// Path of reviews.
pub(crate) const PATH: &str = "/validate-kataconfiguration-openshift-io-v1-kataconfig";
/// Name of the webhook.
pub(crate) const NAME: &str = "vkataconfig.kb.io";
/// Name of the object.
pub(crate) const CONFIGURATION: &str = "sandboxed-containers-operator";
/// Service in front of the webhook.
pub(crate) const SERVICE: &str = "webhook-service";
/// Port the webhook listens on behind its Service.
pub(crate) const PORT: u16 = 9443;

/// How the API server finds us.
pub(crate) enum Place<'a> {
    /// A Service in a namespace.
    Service(&'a str, &'a str),
    /// A URL.
    Url(&'a str),
}

/// The configuration; without `bundle`, the authority is filled in later.
pub(crate) fn configuration(place: &Place<'_>, bundle: Option<&str>) -> ValidatingWebhookConfiguration {
    let mut client = match place {
        Place::Service(namespace, name) => {
            json!({"service": {"namespace": namespace, "name": name, "path": PATH, "port": 443}})
        }
        Place::Url(base) => json!({"url": format!("{base}{PATH}")}),
    };
    if let Some(bundle) = bundle {
        client["caBundle"] = json!(k8s_openapi::ByteString(bundle.as_bytes().to_vec()));
    }
    let made = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [{
            "name": NAME,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "matchPolicy": "Equivalent",
            "timeoutSeconds": 10,
            "rules": [{
                "apiGroups": ["kataconfiguration.openshift.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["kataconfigs"],
                "scope": "*",
            }],
        }],
    });
    serde_json::from_value(made).expect("a ValidatingWebhookConfiguration is written above")
}
