//! kubectl, over TLS.

use std::{path::Path, process::Output, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::common::{self, Cluster, said};

/// Every kubectl there is: the one in PATH, other versions beside it, and those
/// named by KUBECTLS, separated by colons.
fn kubectls() -> Vec<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let first = path.split(':').map(|folder| Path::new(folder).join("kubectl")).find(|file| file.exists());
    let real = first.and_then(|file| std::fs::canonicalize(file).ok());
    let real = real.expect("kubectl is in PATH: `make packages` installs it");
    let beside = ["1.20", "1.27", "1.33"].map(|version| real.with_file_name(format!("kubectl.{version}")));
    let beside = beside.iter().filter(|file| file.exists()).map(|file| file.to_string_lossy().into_owned());
    let named = std::env::var("KUBECTLS").unwrap_or_default();
    let named = named.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    ["kubectl".to_owned()].into_iter().chain(beside).chain(named).collect()
}

struct Kubectl<'a> {
    program: &'a str,
    config: &'a Path,
    namespace: String,
}

impl Kubectl<'_> {
    async fn run(&self, arguments: &str) -> Output {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &str, manifest: &str) -> Output {
        let file = self.config.with_file_name(format!("manifest-{}.yaml", self.namespace));
        std::fs::write(&file, manifest).unwrap();
        let mut command = Command::new(self.program);
        command.arg("--kubeconfig").arg(self.config).arg("-n").arg(&self.namespace);
        command.arg("--cache-dir").arg(self.config.with_file_name("cache"));
        for argument in arguments.split(' ') {
            command.arg(if argument == "FILE" { file.as_os_str() } else { argument.as_ref() });
        }
        let output = command.kill_on_drop(true).output();
        timeout(Duration::from_secs(60), output).await.expect("kubectl ends").expect("kubectl runs")
    }

    /// Runs a command that must succeed and say `words`.
    async fn expect(&self, arguments: &str, manifest: &str, words: &str) {
        let output = self.run_with(arguments, manifest).await;
        assert!(
            output.status.success() && said(&output).contains(words),
            "{} {arguments}: {}",
            self.program,
            said(&output)
        );
    }

    /// Runs a command that must fail and say `words`.
    async fn refuse(&self, arguments: &str, manifest: &str, words: &str) {
        let output = self.run_with(arguments, manifest).await;
        assert!(
            !output.status.success() && said(&output).contains(words),
            "{} {arguments}: {}",
            self.program,
            said(&output)
        );
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, labels: {app: x}}
spec:
  replicas: 2
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec: {containers: [{name: c, image: busybox, ports: [{containerPort: 80}]}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_as_with_kubernetes() {
    let cluster = Cluster::start().await;
    let config = cluster.kubeconfig();
    for (at, program) in kubectls().iter().enumerate() {
        let kubectl = Kubectl { program, config: &config, namespace: format!("n{at}") };
        create_and_read(&kubectl).await;
        apply_and_patch(&kubectl).await;
        custom_resources(&kubectl).await;
    }
    cluster.stop().await;
}

async fn create_and_read(kubectl: &Kubectl<'_>) {
    let namespace = kubectl.namespace.clone();
    kubectl.expect("version", "", "1.34").await;
    kubectl.expect("api-resources", "", "deploy").await;
    kubectl.expect(&format!("create ns {namespace}"), "", "created").await;
    kubectl.refuse(&format!("create ns {namespace}"), "", "AlreadyExists").await;
    for (command, words) in [
        ("create serviceaccount default", "created"),
        ("create configmap c --from-literal=a=b", "created"),
        ("create secret generic s --from-literal=a=b", "created"),
        ("create deployment e --image=nginx", "created"),
        ("create job j --image=busybox", "created"),
        ("create role r --verb=get --resource=pods", "created"),
        ("create rolebinding b --role=r --user=bob", "created"),
        ("create quota q --hard=pods=100", "created"),
        ("get all", "deployment.apps/e"),
        ("get configmap c -o jsonpath={.data.a}", "b"),
        ("get deploy -o wide", "nginx"),
        ("get deploy --sort-by=.metadata.name", "e "),
        ("describe deploy e", "RollingUpdate"),
        ("auth can-i get pods --as=bob", "yes"),
        ("explain pod.spec.containers.image", "image"),
    ] {
        kubectl.expect(command, "", words).await;
    }
    let client = said(&kubectl.run("version --client").await);
    if !client.contains("v1.20.") {
        // That old it asks for policy/v1beta1, which Kubernetes itself has dropped.
        kubectl.expect("create pdb p --selector=app=x --min-available=1", "", "created").await;
    }
    kubectl.refuse("auth can-i delete pods --as=bob", "", "no").await;
    kubectl.refuse("get pods --field-selector=spec.foo=bar", "", "field label not supported: spec.foo").await;
    kubectl.refuse("get pod nosuch", "", "NotFound").await;
}

async fn apply_and_patch(kubectl: &Kubectl<'_>) {
    kubectl.expect("apply -f FILE", DEPLOYMENT, "created").await;
    kubectl.expect("apply -f FILE", DEPLOYMENT, "unchanged").await;
    kubectl.expect("diff -f FILE", DEPLOYMENT, "").await;
    let three = DEPLOYMENT.replace("replicas: 2", "replicas: 3");
    kubectl.expect("apply --dry-run=server -f FILE", &three, "configured").await;
    kubectl.expect("get deploy d -o jsonpath={.spec.replicas}", "", "2").await;
    kubectl.refuse("diff -f FILE", &three, "+  replicas: 3").await;
    let unknown = DEPLOYMENT.replace("replicas: 2", "replicas: 2\n  bogus: 1");
    kubectl.refuse("apply -f FILE", &unknown, "unknown field").await;
    kubectl
        .expect("apply --server-side --field-manager=one --force-conflicts -f FILE", DEPLOYMENT, "serverside-applied")
        .await;
    kubectl.refuse("apply --server-side --field-manager=two -f FILE", &three, ".spec.replicas").await;
    kubectl
        .expect("apply --server-side --field-manager=two --force-conflicts -f FILE", &three, "serverside-applied")
        .await;
    for (command, words) in [
        ("label deploy d a=b", "labeled"),
        ("annotate deploy d a=b", "annotate"),
        ("set image deploy/d c=other", "updated"),
        ("rollout restart deploy/d", "restarted"),
        ("patch deploy d --type=merge -p {\"spec\":{\"replicas\":5}}", "patched"),
        ("patch deploy d --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":6}]", "patched"),
        (
            "patch deploy d -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}",
            "patched",
        ),
        ("scale deploy/d --replicas=4", "scaled"),
        ("get deploy d -o jsonpath={.spec.replicas},{.spec.template.spec.containers[*].image}", "4,i"),
        ("expose deploy d --port=80", "exposed"),
        ("get svc d", "10.96."),
        ("delete deploy d", "deleted"),
        ("delete configmap --all", "deleted"),
    ] {
        kubectl.expect(command, "", words).await;
    }
}

async fn custom_resources(kubectl: &Kubectl<'_>) {
    let crd = common::widgets().to_string();
    kubectl.expect("apply -f FILE", &crd, "created").await;
    kubectl.expect("wait --for=condition=Established crd/widgets.example.com --timeout=10s", "", "condition met").await;
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n";
    kubectl.expect("apply -f FILE", widget, "created").await;
    kubectl.expect("apply -f FILE", widget, "unchanged").await;
    kubectl.expect("get wi", "", "SIZE").await;
    kubectl.refuse("apply -f FILE", &widget.replace("size: 3", "size: 30"), "too big").await;
    kubectl.expect("scale wi w --replicas=4", "", "scaled").await;
    kubectl.refuse("apply -f FILE", &widget.replace("size: 3", "size: 3, bogus: 1"), "unknown field").await;
    kubectl.expect("explain widget.spec.size", "", "How big.").await;
    kubectl.expect("delete crd widgets.example.com", "", "deleted").await;
}
