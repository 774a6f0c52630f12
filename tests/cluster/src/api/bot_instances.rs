//! `teleport.machineid.v1.BotInstanceService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{grpc::Connection, refusal::Refusal};
use crate::wire::teleport::machineid::v1::{
    SubmitHeartbeatRequest, SubmitHeartbeatResponse, bot_instance_service_server::BotInstanceService,
};

/// The longest reason a cluster takes, in bytes (wire §p).
const REASON: usize = 256;
/// Heartbeats that are kept for tests to read.
const KEPT: usize = 1024;

/// What a bot said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// `bot-NAME`.
    pub user: String,
    /// The first one of its process.
    pub is_startup: bool,
    /// Whether the process ends after one pass.
    pub one_shot: bool,
    /// Its machine.
    pub hostname: String,
    /// How it joined.
    pub join_method: String,
    /// What version it says it is.
    pub version: String,
    /// Type, name, state as the wire has it, and reason of every service.
    pub services: Vec<(String, String, String, String)>,
}

/// The service for one connection.
pub(crate) struct BotInstanceApi(pub Arc<Connection>);

#[tonic::async_trait]
impl BotInstanceService for BotInstanceApi {
    async fn submit_heartbeat(
        &self,
        request: Request<SubmitHeartbeatRequest>,
    ) -> Result<Response<SubmitHeartbeatResponse>, Status> {
        let (request, caller) = (request.into_inner(), self.0.caller()?);
        let bad = |words: &str| Refusal::BadParameter(words.to_owned()).status();
        if caller.bot_instance.is_none() || caller.impersonator.is_some() {
            return Err(Refusal::AccessDenied("only a bot may submit heartbeats".to_owned()).status());
        }
        let heartbeat = request.heartbeat.ok_or_else(|| bad("heartbeat: must be set"))?;
        if heartbeat.recorded_at.is_none() || heartbeat.uptime.is_none() {
            return Err(bad("heartbeat: a time is missing"));
        }
        if request.service_health.iter().any(|health| health.reason().len() > REASON) {
            return Err(bad("service_health: reason is too long"));
        }
        let services = request.service_health.iter().map(|health| {
            let service = health.service.clone().unwrap_or_default();
            let status = health.status().as_str_name().trim_start_matches("BOT_INSTANCE_HEALTH_STATUS_");
            (service.r#type, service.name, status.to_owned(), health.reason().to_owned())
        });
        let said = Heartbeat {
            user: caller.user.clone(),
            is_startup: heartbeat.is_startup,
            one_shot: heartbeat.one_shot,
            services: services.collect(),
            hostname: heartbeat.hostname,
            join_method: heartbeat.join_method,
            version: heartbeat.version,
        };
        let kept = &mut self.0.state.registry().heartbeats;
        kept.push(said);
        kept.truncate(KEPT);
        Ok(Response::new(SubmitHeartbeatResponse {}))
    }
}
