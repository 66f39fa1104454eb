//! `grpc.Health`: is anybody there, and who.

use async_trait::async_trait;
use osc_agent_protocol::{
    health::{CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response::ServingStatus},
    health_ttrpc::Health,
};
use ttrpc::r#async::TtrpcContext;

/// Version of the protocol, which has never changed it.
const PROTOCOL_VERSION: &str = "0.0.1";

/// Answers as long as the agent runs at all.
pub(super) struct Pulse;

#[async_trait]
impl Health for Pulse {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: PROTOCOL_VERSION.into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
    }
}
