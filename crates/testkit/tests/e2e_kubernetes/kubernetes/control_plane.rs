//! etcd, API server, controller manager and scheduler.

use std::path::{Path, PathBuf};

use osc_testkit::{command::until, kubectl::Kubectl};

use super::{Kubernetes, LIMIT, free_port, part::Part};

/// Addresses of services. Nobody serves them here: the API server goes to endpoints.
const SERVICES: &str = "10.96.0.0/16";
const ISSUER: &str = "https://kubernetes.default.svc";

impl Kubernetes {
    /// Starts all of it; the API server listens on `port`.
    pub(super) fn control_plane(&mut self, port: u16) {
        let etcd = self.etcd();
        // The key that signs tokens of accounts.
        let (signer, signing_key) = self.access.client("accounts", None);
        self.api_server(port, &etcd, &signer, &signing_key);
        self.eventually("the API server is ready", |kubectl| kubectl.run("get --raw /readyz", &[]).code == 0);
        self.controller_manager(&signing_key);
        self.scheduler();
        // Pods need it, and it shows that the controllers work.
        self.eventually("namespaces have accounts", |kubectl| kubectl.run("get serviceaccount default", &[]).code == 0);
    }

    /// Waits until `seen` holds, or fails the test with what the logs say.
    #[track_caller]
    pub fn eventually(&mut self, what: &str, mut seen: impl FnMut(&Kubectl<'_>) -> bool) {
        let kubeconfig = self.kubeconfig.clone();
        let kubectl = Kubectl::new(&kubeconfig);
        let held = until(LIMIT, || {
            self.parts.iter_mut().for_each(Part::must_run);
            seen(&kubectl)
        });
        assert!(held, "not within {LIMIT:?}: {what}\n{}", self.tails());
    }

    /// Starts etcd; its address.
    fn etcd(&mut self) -> String {
        let (clients, peers) = (local("http", free_port()), local("http", free_port()));
        let words = [
            format!("--data-dir={}", self.root.join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            "--log-level=warn".into(),
        ];
        self.part(Path::new("/usr/bin/etcd"), &words);
        clients
    }

    fn api_server(&mut self, port: u16, etcd: &str, signer: &Path, signing_key: &Path) {
        let names = ["127.0.0.1", "localhost", &self.address, "kubernetes.default.svc", "10.96.0.1"];
        let (certificate, key) = self.access.server("api-server", &names);
        let (to_kubelets, to_kubelets_key) = self.access.client("api-server-to-kubelets", Some("system:masters"));
        let words = [
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            format!("--advertise-address={}", self.address),
            format!("--tls-cert-file={}", certificate.display()),
            format!("--tls-private-key-file={}", key.display()),
            format!("--client-ca-file={}", self.access.authority().display()),
            format!("--kubelet-client-certificate={}", to_kubelets.display()),
            format!("--kubelet-client-key={}", to_kubelets_key.display()),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--service-account-key-file={}", signer.display()),
            format!("--service-account-signing-key-file={}", signing_key.display()),
            format!("--service-account-issuer={ISSUER}"),
            format!("--api-audiences={ISSUER}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            // Webhooks are reached without a proxy of services.
            "--enable-aggregator-routing=true".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
        ];
        self.part(&self.programs.join("kube-apiserver"), &words);
    }

    fn controller_manager(&mut self, signing_key: &Path) {
        let kubeconfig = self.access.kubeconfig("system:kube-controller-manager", None);
        let words = [
            format!("--root-ca-file={}", self.access.authority().display()),
            format!("--service-account-private-key-file={}", signing_key.display()),
            "--use-service-account-credentials=true".into(),
        ];
        self.manager("kube-controller-manager", kubeconfig, &words);
    }

    fn scheduler(&mut self) {
        let kubeconfig = self.access.kubeconfig("system:kube-scheduler", None);
        self.manager("kube-scheduler", kubeconfig, &[]);
    }

    /// What both have in common.
    fn manager(&mut self, program: &str, kubeconfig: PathBuf, more: &[String]) {
        let common = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--cert-dir={}", self.root.join(program).display()),
            format!("--secure-port={}", free_port()),
            "--bind-address=127.0.0.1".into(),
            "--port=0".into(),
            "--leader-elect=false".into(),
        ];
        self.part(&self.programs.join(program), &[&common, more].concat());
    }

    fn part(&mut self, program: &Path, words: &[String]) {
        let name = program.file_name().unwrap().to_str().unwrap();
        self.parts.push(Part::start(name, program, words, &[], &self.logs()));
    }
}

fn local(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}
