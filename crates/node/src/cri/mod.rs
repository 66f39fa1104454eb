//! A typed client of the container runtime interface (`runtime.v1`), over a Unix
//! socket, every call with a deadline.

mod error;

use std::{collections::HashMap, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use k8s_cri::v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use tokio::net::UnixStream;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint, Uri},
};

pub use error::CriError;
pub use k8s_cri::v1 as messages;

/// Calls that only read.
const READ: Duration = Duration::from_secs(20);
/// Booting a virtual machine under software emulation on a busy host.
const BOOT: Duration = Duration::from_secs(240);
/// Creating, starting or removing one object.
const CHANGE: Duration = Duration::from_secs(120);
/// Fetching an image.
const PULL: Duration = Duration::from_secs(1800);

/// A connection to an engine. Cheap to clone; connects on first use and again
/// after the engine restarted.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// Runs one call: `call!(self.runtime.version, "Version", object, READ, request)`.
macro_rules! call {
    ($client:expr, $method:ident, $object:expr, $within:expr, $request:expr) => {{
        let mut client = $client.clone();
        answer(stringify!($method), $object, $within, async move { client.$method($request).await }).await
    }};
}

async fn answer<T>(
    call: &'static str,
    object: &str,
    within: Duration,
    work: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    match tokio::time::timeout(within, work).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CriError::refused(call, object, &status)),
        Err(_) => Err(CriError::Silent { call, object: object.to_owned(), waited: within }),
    }
}

impl Client {
    /// A client for the engine behind `socket`. Nothing is dialled yet.
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is never used: the connector knows the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel).max_decoding_message_size(16 << 20),
        }
    }

    /// Whether the engine can start pods; the conditions that are not met otherwise.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn unmet_conditions(&self) -> Result<Vec<String>, CriError> {
        let reply = call!(self.runtime, status, "engine", READ, v1::StatusRequest::default())?;
        let conditions = reply.status.unwrap_or_default().conditions;
        Ok(conditions.into_iter().filter(|c| !c.status).map(|c| format!("{}: {}", c.r#type, c.message)).collect())
    }

    /// Creates and starts a sandbox; returns its id.
    ///
    /// # Errors
    /// See [`CriError`]; on failure the engine keeps nothing that works.
    pub async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String, CriError> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(call!(self.runtime, run_pod_sandbox, &name, BOOT, request)?.pod_sandbox_id)
    }

    /// Stops a sandbox. Idempotent.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        call!(self.runtime, stop_pod_sandbox, id, CHANGE, request).map(drop)
    }

    /// Removes a sandbox and its containers. Idempotent.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        call!(self.runtime, remove_pod_sandbox, id, CHANGE, request).map(drop)
    }

    /// State and addresses of a sandbox.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, CriError> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Ok(call!(self.runtime, pod_sandbox_status, id, READ, request)?.status.unwrap_or_default())
    }

    /// Sandboxes that carry all of `labels`, newest first.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<v1::PodSandbox>, CriError> {
        let filter = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        let mut items = call!(self.runtime, list_pod_sandbox, "sandboxes", READ, request)?.items;
        items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
        Ok(items)
    }

    /// Creates a container; returns its id.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime, create_container, &name, CHANGE, request)?.container_id)
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        call!(self.runtime, start_container, id, CHANGE, request).map(drop)
    }

    /// Stops a container, killing it after `grace`. Idempotent.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        call!(self.runtime, stop_container, id, CHANGE.saturating_add(grace), request).map(drop)
    }

    /// Removes a container that does not run. Idempotent.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        call!(self.runtime, remove_container, id, CHANGE, request).map(drop)
    }

    /// Changes what a running container may use.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn update_container(&self, id: &str, linux: v1::LinuxContainerResources) -> Result<(), CriError> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        call!(self.runtime, update_container_resources, id, CHANGE, request).map(drop)
    }

    /// Makes the engine open the log of a container anew, after it was put aside.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime, reopen_container_log, id, READ, request).map(drop)
    }

    /// Containers that carry all of `labels`.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn containers(&self, labels: HashMap<String, String>) -> Result<Vec<v1::Container>, CriError> {
        let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        Ok(call!(self.runtime, list_containers, "containers", READ, request)?.containers)
    }

    /// State of a container.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, CriError> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(call!(self.runtime, container_status, id, READ, request)?.status.unwrap_or_default())
    }

    /// Address to dial for an additional process; see [`crate::stream`].
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, CriError> {
        let id = request.container_id.clone();
        Ok(call!(self.runtime, exec, &id, READ, request)?.url)
    }

    /// Address to dial for the streams of the first process.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, CriError> {
        let id = request.container_id.clone();
        Ok(call!(self.runtime, attach, &id, READ, request)?.url)
    }

    /// Address to dial for connections to ports of a sandbox.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn port_forward(&self, sandbox: &str, port: Vec<i32>) -> Result<String, CriError> {
        let request = v1::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port };
        Ok(call!(self.runtime, port_forward, sandbox, READ, request)?.url)
    }

    /// Name and version of the engine.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn version(&self) -> Result<(String, String), CriError> {
        let answer = call!(self.runtime, version, "engine", READ, v1::VersionRequest::default())?;
        Ok((answer.runtime_name, answer.runtime_version))
    }

    /// Runs a command to its end, for at most `limit`; returns exit code and output.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        limit: Duration,
    ) -> Result<v1::ExecSyncResponse, CriError> {
        let timeout = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        call!(self.runtime, exec_sync, id, READ.saturating_add(limit), request)
    }

    /// The image of that name, if it is here.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn image(&self, name: &str) -> Result<Option<v1::Image>, CriError> {
        let request = v1::ImageStatusRequest { image: Some(spec(name)), verbose: false };
        Ok(call!(self.images, image_status, name, READ, request)?.image)
    }

    /// Fetches an image from its registry.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn pull(&self, name: &str, auth: Option<v1::AuthConfig>) -> Result<(), CriError> {
        let request = v1::PullImageRequest { image: Some(spec(name)), auth, ..Default::default() };
        call!(self.images, pull_image, name, PULL, request).map(drop)
    }

    /// All images.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn images(&self) -> Result<Vec<v1::Image>, CriError> {
        Ok(call!(self.images, list_images, "images", READ, v1::ListImagesRequest::default())?.images)
    }

    /// Removes an image with all its names. Idempotent.
    ///
    /// # Errors
    /// See [`CriError`].
    pub async fn remove_image(&self, id: &str) -> Result<(), CriError> {
        let request = v1::RemoveImageRequest { image: Some(spec(id)) };
        call!(self.images, remove_image, id, CHANGE, request).map(drop)
    }
}

fn spec(name: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: name.to_owned(), ..Default::default() }
}
