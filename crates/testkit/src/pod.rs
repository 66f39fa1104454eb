//! Pods made through the container runtime interface, as a kubelet would.

use std::{fs, path::PathBuf, time::Duration};

use k8s_cri::v1;
use osc_agent_protocol::kind::chain;

use crate::{
    command::until,
    host::{BUSYBOX, Host, LIMIT},
};

/// A running pod sandbox.
pub struct Pod<'a> {
    /// Its identifier, which is also the sandbox's.
    pub id: String,
    config: v1::PodSandboxConfig,
    host: &'a Host,
}

/// What a command in a container printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output, without the last line break.
    pub out: String,
    /// Standard error, without the last line break.
    pub err: String,
}

impl<'a> Pod<'a> {
    /// Starts a sandboxed pod; `edit` may change the specification first.
    pub fn start(host: &'a Host, edit: impl FnOnce(&mut v1::PodSandboxConfig)) -> Self {
        Self::try_start(host, "kata", edit).unwrap()
    }

    /// Starts a pod under a runtime of choice, or tells why that failed.
    pub fn try_start(
        host: &'a Host,
        handler: &str,
        edit: impl FnOnce(&mut v1::PodSandboxConfig),
    ) -> Result<Self, String> {
        let name = host.name();
        let mut config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: host.root.join("logs").join(&name).to_str().unwrap().into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(own_processes()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        edit(&mut config);
        let id = host.tokio.block_on(host.cri.run_sandbox(config.clone(), handler));
        Ok(Self { id: id.map_err(|error| chain(&error))?, config, host })
    }

    /// Creates and starts a busybox container that runs `process`; `edit` may
    /// change the specification first.
    pub fn add(&self, name: &str, process: &[&str], edit: impl FnOnce(&mut v1::ContainerConfig)) -> String {
        self.try_add(name, process, edit).unwrap()
    }

    /// As [`Pod::add`], or why that failed.
    pub fn try_add(
        &self,
        name: &str,
        process: &[&str],
        edit: impl FnOnce(&mut v1::ContainerConfig),
    ) -> Result<String, String> {
        let mut config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
            command: process.iter().map(|&word| word.to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(own_processes()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        edit(&mut config);
        let Host { tokio, cri, .. } = self.host;
        tokio.block_on(async {
            let id = cri.create_container(&self.id, config, self.config.clone()).await.map_err(|e| chain(&e))?;
            cri.start_container(&id).await.map_err(|e| chain(&e))?;
            Ok(id)
        })
    }

    /// Runs a shell script in a container.
    pub fn sh(&self, container: &str, script: &str) -> Answer {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let reply = self.host.tokio.block_on(self.host.cri.exec_sync(container, command, LIMIT)).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Answer { code: reply.exit_code, out: text(reply.stdout), err: text(reply.stderr) }
    }

    /// Standard output of a script that has to succeed.
    #[track_caller]
    pub fn out(&self, container: &str, script: &str) -> String {
        let answer = self.sh(container, script);
        assert_eq!(answer.code, 0, "{script}: {answer:?}");
        answer.out
    }

    /// Addresses of the pod, the primary one first.
    pub fn addresses(&self) -> Vec<String> {
        let status = self.host.tokio.block_on(self.host.cri.sandbox_status(&self.id)).unwrap();
        let network = status.network.unwrap();
        [network.ip].into_iter().chain(network.additional_ips.into_iter().map(|ip| ip.ip)).collect()
    }

    /// State of a container.
    pub fn status(&self, container: &str) -> v1::ContainerStatus {
        self.host.tokio.block_on(self.host.cri.container_status(container)).unwrap()
    }

    /// Exit code of a container, once it has ended.
    #[track_caller]
    pub fn exit_code(&self, container: &str) -> i32 {
        assert!(until(LIMIT, || self.status(container).state() == v1::ContainerState::ContainerExited));
        self.status(container).exit_code
    }

    /// Stops a container, with a second to end by itself, and removes it.
    pub fn remove(&self, container: &str) {
        let Host { tokio, cri, .. } = self.host;
        tokio.block_on(cri.stop_container(container, Duration::from_secs(1))).unwrap();
        tokio.block_on(cri.remove_container(container)).unwrap();
    }

    /// Log file of a container.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(PathBuf::from(&self.config.log_directory).join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Stops and removes the pod with all its containers.
    pub fn delete(self) {
        let Host { tokio, cri, .. } = self.host;
        tokio.block_on(cri.stop_sandbox(&self.id)).unwrap();
        tokio.block_on(cri.remove_sandbox(&self.id)).unwrap();
    }
}

/// What a kubelet asks for unless the pod shares its process namespace.
fn own_processes() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() }
}
