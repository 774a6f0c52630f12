//! An authenticated connection as the bot.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use identity::{
    Authorities, Authority, Certificates, Clock, ClusterInfo, Failure, FailureKind, Heartbeat, Identity, Issued,
    Joining, Order, PublicKey, Session, Suite,
};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tonic::Response;
use tonic::transport::Channel;

use crate::address::Route;
use crate::auth_http;
use crate::channel::{ANSWER_BYTES, CALL_TIMEOUT, Connection, speaking};
use crate::error::{RouteError, status};
use crate::heartbeat;
use crate::issue::Issuer;
use crate::join::{self, certificates};
use crate::registration::Registration;
use crate::version::{Major, client_version};
use crate::wire::proto::auth_service_client::AuthServiceClient;
use crate::wire::proto::{Event, FilterEntry, GetRoleRequest, PingRequest, UserCertsRequest, Watch, WatchKind, event};
use crate::wire::teleport::machineid::v1::bot_instance_service_client::BotInstanceServiceClient;
use crate::wire::teleport::trust::v1::GetCertAuthoritiesRequest;
use crate::wire::teleport::trust::v1::trust_service_client::TrustServiceClient;
use crate::wire::types::{CertAuthorityV2, RoleV6};

/// Requests in flight at a time: above four a cluster gets no faster (rust-wire §7), and a fleet should not be felt.
const IN_FLIGHT: usize = 8;
/// Outputs that renew together share one answer; the watch and this bound keep it fresh.
const AUTHORITIES_AGE: Duration = Duration::from_secs(30);

/// All authorities of one kind: as much as one file of an output may hold, which is that of six hundred leaf clusters.
const AUTHORITIES_BYTES: usize = 1 << 20;

/// Makes calls over one connection: bounded in number, time and size, with failures in words.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) route: Route,
    pub(crate) connection: Connection,
    pub(crate) in_flight: Arc<Semaphore>,
}

impl Caller {
    pub(crate) fn trust(&self) -> TrustServiceClient<Connection> {
        TrustServiceClient::new(self.connection.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Connection> {
        AuthServiceClient::new(self.connection.clone()).max_decoding_message_size(ANSWER_BYTES)
    }

    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        self.raw(answer).await.map_err(|e| status(&self.route, &e))
    }

    async fn raw<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, tonic::Status>>,
    ) -> Result<T, tonic::Status> {
        let _permit = self.in_flight.acquire().await.map_err(|_| tonic::Status::internal("closed"))?;
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(tonic::Status::cancelled(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        }
    }
}

/// The last answer, and when it was asked for.
type Cached = Option<(Instant, Arc<Authorities>)>;

pub(crate) struct GrpcSession {
    caller: Caller,
    identity: Arc<Identity>,
    info: ClusterInfo,
    clock: Arc<dyn Clock>,
    issuer: Issuer,
    authorities: Arc<Mutex<Cached>>,
}

impl GrpcSession {
    /// Proves that the cluster accepts the identity: a ping alone proves nothing (rust-wire §3).
    pub(crate) async fn new(
        route: Route,
        channel: Channel,
        identity: Arc<Identity>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RouteError> {
        let connection = speaking(channel.clone(), None);
        let mut caller = Caller { route, connection, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) };
        let (mut pinger, mut asker) = (caller.auth(), caller.auth());
        let role = GetRoleRequest { name: identity.user().to_owned() };
        let both =
            futures::future::join(caller.call(pinger.ping(PingRequest {})), caller.call(asker.get_role(role))).await;
        let refused = |failure: Failure| RouteError { connection: failure.kind == FailureKind::Unavailable, failure };
        let ping = both.0.map_err(refused)?;
        // A bot may be forbidden to read its own role: then it asks for none by default, as the original does (surface §B.6).
        let roles = match both.1 {
            Ok(role) => impersonated_roles(role),
            Err(failure) if failure.kind == FailureKind::Denied => {
                tracing::warn!(target: "TBOT", "Unable to determine default roles, no roles will be requested if unspecified: {failure}");
                vec![]
            }
            Err(failure) => return Err(refused(failure)),
        };
        // From here on the cluster may be told which version it talks to.
        caller.connection = speaking(channel, Some(&client_version(&ping.server_version)));
        let info = ClusterInfo {
            name: ping.cluster_name,
            version: ping.server_version,
            proxy: ping.proxy_public_addr,
            suite: Suite::parse(&ping.signature_algorithm_suite.to_string()),
        };
        if info.name != identity.cluster() {
            let message = format!("the cluster is `{}`, and the identity is of `{}`", info.name, identity.cluster());
            return Err(RouteError::answer(Failure::new(FailureKind::Denied, message)));
        }
        let issuer = Issuer::new(caller.clone(), identity.clone(), info.clone(), clock.clone(), roles);
        Ok(Self { caller, identity, info, clock, issuer, authorities: Arc::default() })
    }

    async fn authority(&self, kind: &str) -> Result<Vec<Authority>, Failure> {
        if !Major::parse(&self.info.version).trust_service() {
            let answer = auth_http::authorities(&self.caller.route, &self.identity, kind).await;
            return answer.map_err(|e| e.context(format_args!("{kind} authorities")));
        }
        let request = GetCertAuthoritiesRequest { r#type: kind.to_owned(), include_key: false };
        let answer = self.caller.call(self.caller.trust().get_cert_authorities(request)).await;
        let mut all: Vec<_> = answer
            .map_err(|e| e.context(format_args!("{kind} authorities")))?
            .cert_authorities_v2
            .into_iter()
            .filter_map(authority)
            .collect();
        all.sort_by_key(|authority| authority.cluster != self.info.name);
        bounded(kind, all)
    }
}

#[async_trait]
impl Session for GrpcSession {
    fn info(&self) -> &ClusterInfo {
        &self.info
    }

    async fn ping(&self) -> Result<(), Failure> {
        self.caller.call(self.caller.auth().ping(PingRequest {})).await.map(drop)
    }

    async fn renew(&self, key: &PublicKey, ttl: Duration) -> Result<Certificates, Failure> {
        let mut request = UserCertsRequest { username: self.identity.user().to_owned(), ..UserCertsRequest::default() };
        request.expires = Some(prost_types::Timestamp { seconds: self.clock.now().plus(ttl).0, nanos: 0 });
        certify(&mut request, key, &self.info.version);
        let answer = self.caller.raw(self.caller.auth().generate_user_certs(request)).await;
        certificates(answer.map_err(|e| unanswered(&e, status(&self.caller.route, &e)))?)
    }

    async fn rejoin(&self, joining: Joining<'_>) -> Result<Certificates, Failure> {
        let (route, version) = (&self.caller.route, &self.info.version);
        let anew = || Failure::new(FailureKind::Unsupported, "this cluster keeps no bot instances: join anew");
        if !Major::parse(version).bot_instances() {
            return Err(anew());
        }
        let registration = Registration::new(joining, self.clock.now()).await?;
        let joined = join::grpc(&self.caller.connection, route, version, &registration).await;
        joined.map_err(|e| e.failure)?.ok_or_else(anew)
    }

    async fn issue(&self, order: &Order) -> Result<Issued, Failure> {
        self.issuer.issue(order).await
    }

    async fn authorities(&self) -> Result<Arc<Authorities>, Failure> {
        // Holding the lock while asking makes those who come meanwhile share the answer.
        let mut cached = self.authorities.lock().await;
        if let Some((asked, authorities)) = &*cached
            && asked.elapsed() < AUTHORITIES_AGE
        {
            return Ok(authorities.clone());
        }
        let (host, user, database) =
            futures::future::try_join3(self.authority("host"), self.authority("user"), self.authority("db")).await?;
        let authorities = Arc::new(Authorities { host, user, database });
        *cached = Some((Instant::now(), authorities.clone()));
        Ok(authorities)
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool, Failure> {
        if !Major::parse(&self.info.version).bot_instances() {
            return Ok(false);
        }
        let request = heartbeat::request(heartbeat, self.clock.now(), &self.info.version);
        let mut service = BotInstanceServiceClient::new(self.caller.connection.clone());
        match self.caller.call(service.submit_heartbeat(request)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == FailureKind::Unsupported => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn rotations(&self) -> Result<BoxStream<'static, Result<(), Failure>>, Failure> {
        let own = self.info.name.clone();
        let filter =
            ["host", "user", "db"].map(|kind| FilterEntry { key: kind.to_owned(), value: own.clone() }).to_vec();
        let kinds = vec![WatchKind { kind: "cert_authority".into(), filter, ..WatchKind::default() }];
        let watch = Watch { kinds, allow_partial_success: false };
        let events = self.caller.call(self.caller.auth().watch_events(watch)).await?;
        let (cache, route) = (self.authorities.clone(), self.caller.route.clone());
        let steps = events.filter_map(move |event| {
            let step = match event {
                Ok(event) => rotation_step(&event, &own).then_some(Ok(())),
                Err(e) => Some(Err(status(&route, &e))),
            };
            let cache = cache.clone();
            async move {
                if step.is_some() {
                    *cache.lock().await = None;
                }
                step
            }
        });
        Ok(steps.boxed())
    }
}

/// Puts the key where this version looks for it; never in both places (wire §f.5, §p).
pub(crate) fn certify(request: &mut UserCertsRequest, key: &PublicKey, version: &str) {
    let line = format!("{}\n", key.ssh_line()).into_bytes();
    if Major::parse(version).split_keys() {
        request.ssh_public_key = line;
        request.tls_public_key = key.pem().into_bytes();
    } else {
        request.public_key = line;
    }
}

/// A request that may have been counted is told apart from one that never left or was refused (rust-wire §4). A cluster that answers
/// "unavailable" may have counted before something behind it failed.
fn unanswered(error: &tonic::Status, failure: Failure) -> Failure {
    use tonic::Code;
    let mut source = std::error::Error::source(error);
    let unclear =
        [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable, Code::Internal, Code::OutOfRange, Code::DataLoss];
    let mut lost = source.is_some() || unclear.contains(&error.code());
    while let Some(current) = source {
        lost &= !current.is::<tonic::ConnectError>();
        source = current.source();
    }
    match lost {
        true => Failure { kind: FailureKind::AnswerLost, ..failure }.context("the answer to the renewal was lost"),
        false => failure,
    }
}

pub(crate) fn impersonated_roles(role: RoleV6) -> Vec<String> {
    role.spec.and_then(|spec| spec.allow).and_then(|allow| allow.impersonate).map(|may| may.roles).unwrap_or_default()
}

pub(crate) fn authority(resource: CertAuthorityV2) -> Option<Authority> {
    let spec = resource.spec?;
    let mut authority = Authority { cluster: spec.cluster_name, tls_certificates: vec![], ssh_keys: vec![] };
    // During a rotation both are to be trusted (wire §f.5).
    for keys in [spec.active_keys, spec.additional_trusted_keys].into_iter().flatten() {
        for pair in keys.tls {
            authority.tls_certificates.push(String::from_utf8(pair.cert).ok()?);
        }
        for pair in keys.ssh {
            authority.ssh_keys.push(String::from_utf8(pair.public_key).ok()?.trim().to_owned());
        }
    }
    Some(authority)
}

/// Refuses more than any file could hold, before a plugin meets it.
fn bounded(kind: &str, all: Vec<Authority>) -> Result<Vec<Authority>, Failure> {
    let texts = all.iter().flat_map(|authority| authority.tls_certificates.iter().chain(&authority.ssh_keys));
    let bytes: usize = texts.map(String::len).sum();
    if bytes > AUTHORITIES_BYTES {
        let message = format!(
            "{kind} authorities: the cluster names {} with {bytes} bytes, and a file holds {AUTHORITIES_BYTES}: remove leaf clusters that are gone (`tctl rm rc/NAME`)",
            all.len()
        );
        return Err(Failure::new(FailureKind::Denied, message));
    }
    Ok(all)
}

/// Does the event say that clients have to renew? (wire §f.9)
pub(crate) fn rotation_step(event: &Event, cluster: &str) -> bool {
    let Some(event::Resource::CertAuthority(authority)) = &event.resource else { return false };
    let Some(spec) = &authority.spec else { return false };
    let phase = spec.rotation.as_ref().map_or("", |rotation| rotation.phase.as_str());
    event.r#type() == event::Operation::Put
        && spec.cluster_name == cluster
        && ["host", "user", "db"].contains(&spec.r#type.as_str())
        && !["", "init", "update_servers"].contains(&phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_renewal_that_may_have_been_counted_is_lost() {
        let failure = || Failure::new(FailureKind::Denied, "x");
        for (error, kind) in [
            (tonic::Status::unavailable("x"), FailureKind::AnswerLost),
            (tonic::Status::cancelled("Timeout expired"), FailureKind::AnswerLost),
            (tonic::Status::internal("failed to decode"), FailureKind::AnswerLost),
            (tonic::Status::permission_denied("x"), FailureKind::Denied),
            (tonic::Status::failed_precondition("try the request again"), FailureKind::Denied),
            (tonic::Status::unknown("x"), FailureKind::Denied),
        ] {
            assert_eq!(unanswered(&error, failure()).kind, kind, "{error}");
        }
    }
}
