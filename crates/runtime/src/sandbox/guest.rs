//! Telling a new guest who it is: its sandbox, its network.

use osc_agent_protocol::{
    agent::{
        ARPNeighbors, AddARPNeighborsRequest, CreateSandboxRequest, KernelModule, Routes, SetPolicyRequest,
        UpdateInterfaceRequest, UpdateRoutesRequest,
    },
    types::Interface,
};
use protobuf::MessageField;

use super::{Request, agent::Agent, boot::blocking, error::SandboxError};
use crate::{network::Network, spec};

/// Prepares the guest behind `agent`. `late` are interfaces that were plugged in
/// after the start; they replace those of `network`.
pub(super) async fn prepare(
    agent: &Agent,
    request: &Request,
    network: Option<&Network>,
    late: Option<Vec<Interface>>,
) -> Result<(), SandboxError> {
    if let Some(policy) = &request.config.agent.policy {
        agent.set_policy(SetPolicyRequest { policy: policy.clone(), ..Default::default() }).await?;
    }
    let network = async {
        match network {
            Some(network) => set_network(agent, network, late).await,
            None => Ok(()),
        }
    };
    // Neither needs the other: one round trip less on the way to the first container.
    tokio::try_join!(network, create_sandbox(agent, request))?;
    Ok(())
}

async fn set_network(agent: &Agent, network: &Network, late: Option<Vec<Interface>>) -> Result<(), SandboxError> {
    let interfaces = late.unwrap_or_else(|| network.interfaces().to_vec());
    for interface in interfaces {
        let request = UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() };
        agent.update_interface(request).await?;
    }
    if !network.routes().is_empty() {
        let routes = MessageField::some(Routes { Routes: network.routes().to_vec(), ..Default::default() });
        agent.update_routes(UpdateRoutesRequest { routes, ..Default::default() }).await?;
    }
    if !network.neighbors().is_empty() {
        let neighbors = ARPNeighbors { ARPNeighbors: network.neighbors().to_vec(), ..Default::default() };
        let neighbors = MessageField::some(neighbors);
        agent.add_arp_neighbors(AddARPNeighborsRequest { neighbors, ..Default::default() }).await?;
    }
    Ok(())
}

async fn create_sandbox(agent: &Agent, request: &Request) -> Result<(), SandboxError> {
    let spec = request.spec.clone();
    let (hostname, dns, shm) =
        blocking(move || Ok((spec::hostname(&spec), spec::dns(&spec)?, spec::shm_size(&spec)))).await?;
    let modules = request.config.agent.kernel_modules.iter().map(|module| KernelModule {
        name: module.name.clone(),
        parameters: module.parameters.clone(),
        ..Default::default()
    });
    let message = CreateSandboxRequest {
        hostname,
        dns,
        storages: spec::sandbox_storages(shm),
        sandbox_id: request.id.to_string(),
        guest_hook_path: request.config.hypervisor.guest_hook_path.clone(),
        kernel_modules: modules.collect(),
        ..Default::default()
    };
    agent.create_sandbox(message).await?;
    Ok(())
}
