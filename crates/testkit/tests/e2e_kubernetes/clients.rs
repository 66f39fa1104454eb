//! The commands of the suite, at a real Kubernetes: what is asked of the embedded
//! cluster is what Kubernetes does.

use std::time::Duration;

use osc_testkit::kubectl::{Kubectl, programs};

use crate::{commands, delivery, kubernetes::Kubernetes, show, streams};

/// The kubelet of that time clears away some containers only at its rounds, one a minute.
const CLEANUP: Duration = Duration::from_secs(75);

#[test]
fn old_and_new_clients_get_what_they_get_from_the_embedded_cluster() {
    let mut cluster = Kubernetes::start();
    let daemon = delivery::install(&mut cluster);
    cluster.add_node("worker-1", &daemon);
    for (number, program) in programs().into_iter().enumerate() {
        let kubectl = Kubectl { program, namespace: format!("client-{number}"), ..cluster.kubectl() };
        let client = kubectl.ok("version --client").lines().next().unwrap_or_default().to_owned();
        let client = client.chars().take(40).collect::<String>();
        show(&format!("{client}: objects, pods, streams"), || {
            commands::looking_around(&kubectl);
            commands::objects(&kubectl);
            commands::life_of_a_pod(&kubectl);
            commands::ends_of_pods(&kubectl, CLEANUP);
            streams::logs(&kubectl);
        });
        show(&format!("{client}: rollouts, drains, kinds, owners"), || {
            commands::rollouts(&kubectl);
            commands::evictions(&kubectl, "v1beta1");
            commands::custom_resources(&kubectl, false);
            commands::identities(&kubectl);
            commands::owners(&kubectl);
            kubectl.says(&format!("delete ns {}", kubectl.namespace), "", "deleted");
        });
    }
    cluster.end();
}
