//! What people type, and what a cluster has to answer: the embedded one, and with
//! these same steps a real Kubernetes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use osc_testkit::{command::until, host::LIMIT, kubectl::Kubectl};
use serde_json::{Value, json};

use super::{manifests, streams};

/// Versions, kinds, nodes, namespaces.
pub fn looking_around(kubectl: &Kubectl<'_>) {
    let versions = kubectl.ok("version");
    assert!(versions.contains("Client Version") && versions.contains("Server Version"), "{versions}");
    let kinds = kubectl.ok("api-resources");
    for kind in ["deploy ", "runtimeclasses", "pdb "] {
        assert!(kinds.contains(kind), "{kind}: {kinds}");
    }
    let nodes = kubectl.ok("get nodes -o wide");
    for word in ["worker-1", "Ready", "containerd://", "KERNEL-VERSION"] {
        assert!(nodes.contains(word), "{word}: {nodes}");
    }
    kubectl.refuses("top nodes", "", "Metrics API not available");
    kubectl.says("get --raw /readyz?verbose", "", "readyz check passed");
    let namespace = &kubectl.namespace;
    kubectl.says(&format!("create ns {namespace}"), "", "created");
    kubectl.refuses(&format!("create ns {namespace}"), "", "AlreadyExists");
}

/// Creating, applying, comparing, changing.
pub fn objects(kubectl: &Kubectl<'_>) {
    kubectl.says("create configmap c --from-literal=a=b", "", "created");
    let web = manifests::deployment("web", 1, "one").to_string();
    kubectl.says("apply -f -", &web, "created");
    kubectl.says("apply -f -", &web, "unchanged");
    kubectl.refuses("apply -f -", &web.replace("replicas", "replicaz"), "replicaz");

    let map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"k": value}}).to_string()
    };
    kubectl.says("apply --server-side --field-manager=one -f -", &map("1"), "serverside-applied");
    kubectl.refuses("apply --server-side --field-manager=two -f -", &map("2"), ".data.k");
    kubectl.says("apply --server-side --field-manager=two --force-conflicts -f -", &map("2"), "serverside-applied");

    let two = manifests::deployment("web", 2, "one").to_string();
    kubectl.says("apply --dry-run=server -f -", &two, "configured");
    kubectl.says("get deploy web -o jsonpath={.spec.replicas}", "", "1");
    assert_eq!(kubectl.with("diff -f -", &web).code, 0);
    assert_eq!(kubectl.with("diff -f -", &two).code, 1);

    for (line, words) in [
        ("label configmap c x=y", "labeled"),
        ("annotate configmap c x=y", "annotate"),
        ("patch configmap c --type=merge -p {\"data\":{\"m\":\"1\"}}", "patched"),
        ("patch configmap c --type=json -p [{\"op\":\"add\",\"path\":\"/data/j\",\"value\":\"2\"}]", "patched"),
        ("patch configmap c -p {\"data\":{\"s\":\"3\"}}", "patched"),
        ("get configmap c -o jsonpath={.data.a}{.data.m}{.data.j}{.data.s}{.metadata.labels.x}", "b123y"),
        ("taint node worker-1 color=blue:PreferNoSchedule", "tainted"),
        ("get node worker-1 -o jsonpath={.spec.taints[*].value}", "blue"),
        ("taint node worker-1 color-", "untainted"),
    ] {
        kubectl.says(line, "", words);
    }
}

/// Pod `p` from its creation to all that can be done with it.
pub fn life_of_a_pod(kubectl: &Kubectl<'_>) {
    let rows = kubectl.start("get pods -w", &[]);
    kubectl.says("apply -f -", &manifests::pod("p", streams::SERVER, false).to_string(), "created");
    kubectl.says("wait pod/p --for=condition=Ready --timeout=60s", "", "condition met");
    for word in ["Pending", "ContainerCreating", "Running"] {
        rows.expect(word, LIMIT);
    }
    drop(rows);
    kubectl.says("get pods -l app=p -o name", "", "pod/p");
    kubectl.says("get pods --field-selector=metadata.name=p -o name", "", "pod/p");
    kubectl.refuses("get pods --field-selector=spec.bogus=1", "", "field label not supported");
    let yaml = kubectl.ok("get pod p -o yaml");
    assert!(yaml.contains("kind: Pod") && yaml.contains("apiVersion: v1"), "{yaml}");
    let described = kubectl.ok("describe pod p");
    for word in ["QoS Class", "Conditions", "/scratch from scratch", "Started container main"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    streams::work(kubectl, "p");
}

/// The end of pod `p`, and of others that want more time or less.
///
/// `most` is what the node may take for its work after the grace.
pub fn ends_of_pods(kubectl: &Kubectl<'_>, most: Duration) {
    let late = kubectl.run("wait pod/p --for=delete --timeout=1s", &[]);
    assert_eq!(late.code, 1, "{}", late.errors());
    let gone = kubectl.start("wait pod/p --for=delete --timeout=90s", &[]);
    // The shell does not listen, so the grace of two seconds, which ends with a whole
    // second, is used up.
    let took = kubectl.run("delete pod p", &[]).ok().took;
    assert!((Duration::from_secs(1)..most).contains(&took), "{took:?}");
    assert_eq!(gone.code(LIMIT), 0);

    let mut stubborn = manifests::pod("stubborn", "exec sleep 100000", false);
    stubborn["spec"]["terminationGracePeriodSeconds"] = 600.into();
    kubectl.says("apply -f -", &stubborn.to_string(), "created");
    kubectl.ok("wait pod/stubborn --for=condition=Ready --timeout=60s");
    let took = kubectl.run("delete pod stubborn --force --grace-period=0", &[]).ok().took;
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// A Service leads to a pod that runs [`streams::SERVER`]: by name and address, from
/// the pod itself and from the machine.
pub fn services(kubectl: &Kubectl<'_>, pod: &str) {
    kubectl.says(&format!("expose pod {pod} --name=front --type=NodePort --port=80 --target-port=8000"), "", "exposed");
    for name in ["front".to_owned(), format!("front.{}.svc.cluster.local", kubectl.namespace)] {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {name} 80");
        let answered =
            until(LIMIT, || kubectl.run(&format!("exec {pod} -- sh -c"), &[&script]).text().contains("hello"));
        assert!(answered, "no answer from {name}");
    }
    let address = kubectl.ok("get service front -o jsonpath={.spec.clusterIP}");
    let node = kubectl.ok("get node worker-1 -o jsonpath={.status.addresses[0].address}");
    let port = kubectl.ok("get service front -o jsonpath={.spec.ports[0].nodePort}");
    for front in [format!("{address}:80"), format!("{node}:{port}")] {
        assert!(until(LIMIT, || answers(&front)), "no answer from {front}");
    }
    kubectl.says("delete service front", "", "deleted");
    assert!(until(LIMIT, || !answers(&format!("{node}:{port}"))), "the node port is still served");
}

/// A container put into a running pod has its network and, outside sandboxes, sees the
/// processes of the container it is to look at.
pub fn debugging(kubectl: &Kubectl<'_>, pod: &str, sandboxed: bool) {
    if is_old(kubectl) {
        return;
    }
    let (target, seen) = if sandboxed { ("", "hello") } else { ("--target=main", "sleep 100000") };
    let script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 127.0.0.1 8080; tr '\\0' ' ' < /proc/1/cmdline";
    let line = format!("debug {pod} -c looking {target} --image=localhost/busybox:latest");
    kubectl.run(&format!("{line} --image-pull-policy=IfNotPresent -- sh -c"), &[script]).ok();
    kubectl.eventually(&format!("logs {pod} -c looking"), seen);
    kubectl.says(&format!("logs {pod} -c looking"), "", "hello");
    kubectl.says(&format!("describe pod {pod}"), "", "Ephemeral Containers");
}

/// Whether the client is from before 1.24: it creates no tokens, and speaks of ephemeral
/// containers as a kind of their own.
fn is_old(kubectl: &Kubectl<'_>) -> bool {
    let version: Value = serde_json::from_str(&kubectl.ok("version --client -o json")).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    minor.trim_end_matches('+').parse::<u32>().unwrap() < 24
}

/// Whether a greeting comes from there.
fn answers(address: &str) -> bool {
    answer(address).is_ok_and(|text| text.contains("hello"))
}

/// What an HTTP server answers.
pub fn answer(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A pod that had its time fails, and says so only when its containers have ended.
pub fn late_runs_late(kubectl: &Kubectl<'_>) {
    let mut late = manifests::pod("late", "exec sleep 100000", false);
    late["spec"]["activeDeadlineSeconds"] = 2.into();
    kubectl.says("apply -f -", &late.to_string(), "created");
    let mut pod = Value::Null;
    let failed = until(LIMIT, || {
        pod = serde_json::from_str(&kubectl.ok("get pod late -o json")).unwrap();
        pod["status"]["phase"] == "Failed"
    });
    assert!(failed && pod["status"]["reason"] == "DeadlineExceeded", "{:#}", pod["status"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    kubectl.says("delete pod late", "", "deleted");
}

/// Versions of a deployment, and their number of pods.
pub fn rollouts(kubectl: &Kubectl<'_>) {
    kubectl.says("rollout status deploy/web --timeout=60s", "", "successfully rolled out");
    kubectl.says("apply -f -", &manifests::deployment("web", 1, "two").to_string(), "configured");
    kubectl.ok("rollout status deploy/web --timeout=60s");
    kubectl.says("rollout restart deploy/web", "", "restarted");
    kubectl.ok("rollout status deploy/web --timeout=60s");
    let history = kubectl.ok("rollout history deploy/web");
    assert!(["1 ", "2 ", "3 "].iter().all(|revision| history.contains(revision)), "{history}");
    kubectl.says("rollout undo deploy/web --to-revision=1", "", "rolled back");
    kubectl.ok("rollout status deploy/web --timeout=60s");
    kubectl.says("get deploy web -o jsonpath={.spec.template.spec.containers[0].env[0].value}", "", "one");
    kubectl.says("rollout pause deploy/web", "", "paused");
    kubectl.says("rollout resume deploy/web", "", "resumed");
    kubectl.says("scale deploy/web --replicas=3", "", "scaled");
    kubectl.ok("rollout status deploy/web --timeout=60s");
    kubectl.eventually("get deploy web", "3/3");
    kubectl.says("scale deploy/web --replicas=1", "", "scaled");
    kubectl.eventually("get deploy web", "1/1");
}

/// The embedded cluster takes an autoscaler and says that nobody acts on it.
pub fn autoscaling(kubectl: &Kubectl<'_>) {
    let scaler = kubectl.run("autoscale deploy/web --max=3", &[]).ok();
    assert!(scaler.errors().contains("does not scale anything"), "{}", scaler.errors());
    kubectl.says("delete hpa web", "", "deleted");
}

/// A drain waits for the budget, and goes on once it may. `policy` is the version of
/// the group that server and clients know.
pub fn evictions(kubectl: &Kubectl<'_>, policy: &str) {
    kubectl.says("apply -f -", &manifests::budget("web", policy).to_string(), "created");
    kubectl.eventually("get pdb web -o jsonpath={.status.currentHealthy}", "1");
    let drain = kubectl
        .start("drain worker-1 --pod-selector=app=web --delete-emptydir-data --ignore-daemonsets --timeout=90s", &[]);
    drain.expect("would violate the pod's disruption budget", LIMIT);
    kubectl.says("get node worker-1", "", "SchedulingDisabled");
    kubectl.says("get pods -l app=web", "", "Running");
    kubectl.says("delete pdb web", "", "deleted");
    assert_eq!(drain.code(LIMIT), 0);
    kubectl.eventually("get pods -l app=web", "Pending");
    kubectl.says("uncordon worker-1", "", "uncordoned");
    kubectl.ok("rollout status deploy/web --timeout=60s");
}

/// A kind of one's own, with a rule in CEL where the server knows such.
pub fn custom_resources(kubectl: &Kubectl<'_>, rules: bool) {
    let word = if kubectl.namespace.ends_with('0') { "gadget" } else { "widget" };
    kubectl.says("apply -f -", &manifests::definition(word, rules).to_string(), "created");
    kubectl.ok(&format!("wait crd/{word}s.example.com --for=condition=Established --timeout=20s"));
    kubectl.says("apply -f -", &manifests::custom(word, json!({})).to_string(), "created");
    let table = kubectl.ok(&format!("get {word}"));
    assert!(table.contains("SIZE") && table.contains('3'), "{table}");
    let (wrong, words) = if rules { (json!({"size": 30}), "too big") } else { (json!({"size": "x"}), "spec.size") };
    kubectl.refuses("apply -f -", &manifests::custom(word, wrong).to_string(), words);
    kubectl.eventually(&format!("explain {word}.spec.size"), "How big.");
    kubectl.says(&format!("delete crd {word}s.example.com"), "", "deleted");
}

/// Who may do what, and a token to do it with.
pub fn identities(kubectl: &Kubectl<'_>) {
    let namespace = &kubectl.namespace;
    kubectl.says("create role reader --verb=get,list --resource=pods", "", "created");
    kubectl.says("create rolebinding reader --role=reader --user=jane", "", "created");
    kubectl.says("auth can-i list pods --as=jane", "", "yes");
    kubectl.refuses("auth can-i delete pods --as=jane", "", "no");
    let token = kubectl.run("create token default", &[]);
    if is_old(kubectl) {
        assert_ne!(token.code, 0);
        return;
    }
    let server = kubectl.ok("config view -o jsonpath={.clusters[0].cluster.server}");
    let token = token.ok().text();
    let list = |resource: &str| {
        let line = format!("get {resource} --server={server} --insecure-skip-tls-verify --kubeconfig=/dev/null");
        kubectl.run(&line, &["--token", &token])
    };
    let stranger = list("pods").errors();
    assert!(stranger.contains(&format!("system:serviceaccount:{namespace}:default")), "{stranger}");
    kubectl.says(
        &format!("create rolebinding account --role=reader --serviceaccount={namespace}:default"),
        "",
        "created",
    );
    list("pods").ok();
}

/// What becomes of pods whose owner is deleted.
pub fn owners(kubectl: &Kubectl<'_>) {
    kubectl.says("delete deploy web --cascade=foreground --timeout=60s", "", "deleted");
    assert_eq!(kubectl.ok("get pods,replicasets -l app=web -o name"), "");
    kubectl.says("apply -f -", &manifests::deployment("kept", 1, "one").to_string(), "created");
    kubectl.ok("rollout status deploy/kept --timeout=60s");
    kubectl.says("delete deploy kept --cascade=orphan", "", "deleted");
    kubectl.says("get replicasets -l app=kept", "", "kept");
    kubectl.says("get pods -l app=kept", "", "Running");
}

/// What the machine of a sandbox costs counts on its node.
pub fn overhead(kubectl: &Kubectl<'_>) {
    let described = kubectl.ok("describe node worker-1");
    let line = described.lines().find(|line| line.trim_start().starts_with("default") && line.contains(" box "));
    let line = line.unwrap_or_else(|| panic!("no line for the pod: {described}"));
    let overhead = kubectl.ok("get runtimeclass kata -o jsonpath={.overhead.podFixed.memory}");
    assert!(line.contains(&overhead), "no {overhead} in {line}");
}
