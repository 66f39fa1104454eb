//! There is one KataConfig: by the webhook, and where that was passed, by the operator.

use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret};
use kube::{Api, api::PostParams};
use osc_operator::{Options, ReachedBy, WebhookOptions};
use serde_json::json;

use crate::kit::{NAMESPACE, World, degraded, options, run, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_kataconfig_is_refused_and_one_that_slipped_through_says_so() {
    let world = World::start().await;
    world.create_config("slipped", json!({})).await.expect("nobody is asked yet");
    world.create_config("through", json!({})).await.expect("nobody is asked yet");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let webhook = Some(WebhookOptions { listen, reached_by: ReachedBy::Address });
    // This way of reaching it is for the embedded cluster, where the operator is part of the server.
    let operator = run(world.client.clone(), Options { webhook, ..options() });
    world.until_config("through", "refused", |config| degraded(config) == "DuplicateKataConfig").await;
    let first = world.until_state("slipped", "True/Installing/0/0").await;
    assert_eq!(degraded(&first), "AsExpected", "{}", state(&first));
    world.until::<ValidatingWebhookConfiguration>(None, "one", |found| found.len() == 1).await;
    let waiting = async {
        loop {
            match world.create_config("third", json!({})).await {
                Err(kube::Error::Api(status)) if status.message.contains("already exists, refusing") => return status,
                // The server of the webhook starts to show its certificate a moment after.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                Ok(_) => panic!("a third one was let in"),
            }
        }
    };
    let refusal = tokio::time::timeout(crate::kit::PATIENCE, waiting).await.expect("a verdict");
    assert_eq!(
        refusal.message,
        "admission webhook \"vkataconfig.kb.io\" denied the request: A KataConfig instance already exists, refusing to \
         create a duplicate"
    );
    world.delete_config("through").await;
    world.until::<osc_objects::KataConfig>(None, "one left", |configs| configs.len() == 1).await;
    operator.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_definition_refuses_what_cannot_be_used() {
    let world = World::start().await;
    let expression = |operator: &str, values: serde_json::Value| json!({"kataConfigPoolSelector": {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}});
    for (spec, complaint) in [
        (json!({"logLevel": "loud"}), "Unsupported value: \"loud\""),
        (expression("Near", json!(["b"])), "Unsupported value: \"Near\""),
        (expression("In", json!([])), "In and NotIn need values"),
        (expression("Exists", json!(["b"])), "In and NotIn need values"),
    ] {
        let refusal = world.create_config("bad", spec.clone()).await.expect_err("it cannot be used").to_string();
        assert!(refusal.contains(complaint), "{spec}: {refusal}");
    }
    world.create_config("good", expression("In", json!(["b"]))).await.expect("it can be used");
    world.stop().await;
}

/// The certificate that ends soon is replaced; whoever trusts the old authority still does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_near_its_end_is_replaced_and_the_trust_in_it_published() {
    const OLD: &str = "-----BEGIN CERTIFICATE-----\nb2xk\n-----END CERTIFICATE-----";
    let world = World::start().await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), NAMESPACE);
    let old = json!({"metadata": {"name": "sandboxed-containers-webhook-cert"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": "old", "tls.key": "old", "ca.crt": OLD, "not-after": "0"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(old).expect("a secret")).await.expect("a secret");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let reached_by = ReachedBy::Service("webhook-service".into());
    let webhook = Some(WebhookOptions { listen, reached_by });
    let operator = world.operator(Options { webhook, ..options() }).await;
    let trust = |configurations: &[ValidatingWebhookConfiguration]| {
        let webhook = configurations.first()?.webhooks.as_ref()?.first()?.clone();
        String::from_utf8(webhook.client_config.ca_bundle?.0).ok()
    };
    let found = world.until(None, "trusted", |found| trust(found).is_some()).await;
    let bundle = trust(&found).expect("a bundle");
    assert!(bundle.trim_end().ends_with(OLD) && bundle.matches("BEGIN").count() == 2, "{bundle}");
    let data = secrets.get("sandboxed-containers-webhook-cert").await.expect("kept").data.expect("data");
    assert!(data["not-after"].0.len() > 1 && data["ca.crt"].0 == bundle.into_bytes());
    operator.stop().await;
    world.stop().await;
}
