//! `proto.AuthService`.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{certificates, grpc::Connection, refusal::Refusal, resources, sessions, watch};
use crate::{
    AuthorityKind,
    pki::authority::KeySet,
    wire::{
        proto::{
            AppSessionResponse, Certs, CreateAppSessionRequest, Event, Features, GetAppSessionRequest,
            GetClusterCaCertResponse, GetDomainNameResponse, GetRoleRequest, IsMfaRequiredRequest,
            IsMfaRequiredResponse, ListResourcesRequest, ListResourcesResponse, PingRequest, PingResponse,
            UserCertsRequest, Watch, auth_service_server::AuthService,
        },
        types::{AuthPreferenceSpecV2, AuthPreferenceV2, Metadata, RoleV6, UserSpecV2, UserV2},
    },
};

/// The service for one connection.
pub(crate) struct AuthApi(pub Arc<Connection>);

#[tonic::async_trait]
impl AuthService for AuthApi {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let state = &self.0.state;
        Ok(Response::new(PingResponse {
            cluster_name: state.options.cluster_name.clone(),
            server_version: state.options.release.version().to_owned(),
            server_features: Some(Features { kubernetes: true, app: true, db: true, desktop: true }),
            proxy_public_addr: state.proxy_address(),
            remote_addr: self.0.remote.to_string(),
            signature_algorithm_suite: state.options.suite().map_or(0, |suite| suite as i32),
            ..PingResponse::default()
        }))
    }

    async fn generate_user_certs(&self, request: Request<UserCertsRequest>) -> Result<Response<Certs>, Status> {
        // RSA signatures take milliseconds: off the threads that serve connections.
        let connection = self.0.clone();
        let work = move || certificates::generate(&connection, request.get_ref());
        let certs = tokio::task::spawn_blocking(work).await.map_err(|error| Status::unknown(error.to_string()))??;
        Ok(Response::new(certs))
    }

    async fn get_cluster_ca_cert(&self, _: Request<()>) -> Result<Response<GetClusterCaCertResponse>, Status> {
        let pem = |host: &crate::pki::authority::Authority| {
            Ok(host.trusted().map(KeySet::certificate_pem).collect::<String>().into_bytes())
        };
        let tls_ca = self.0.state.authority(AuthorityKind::Host, pem).map_err(Refusal::from)?;
        Ok(Response::new(GetClusterCaCertResponse { tls_ca }))
    }

    async fn get_domain_name(&self, _: Request<()>) -> Result<Response<GetDomainNameResponse>, Status> {
        Ok(Response::new(GetDomainNameResponse { domain_name: self.0.state.options.cluster_name.clone() }))
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<RoleV6>, Status> {
        let (name, caller) = (&request.get_ref().name, self.0.caller()?);
        if *name != caller.user {
            let refusal = Refusal::AccessDenied("access denied to perform action \"read\" on \"role\"".to_owned());
            return Err(refusal.status());
        }
        Ok(Response::new(resources::bot_role(&self.0.state, name)?))
    }

    async fn get_current_user(&self, _: Request<()>) -> Result<Response<UserV2>, Status> {
        let caller = self.0.caller()?;
        Ok(Response::new(UserV2 {
            kind: "user".to_owned(),
            version: "v2".to_owned(),
            metadata: Some(Metadata {
                name: caller.user.clone(),
                namespace: "default".to_owned(),
                ..Metadata::default()
            }),
            spec: Some(UserSpecV2 { roles: caller.roles.clone() }),
            ..UserV2::default()
        }))
    }

    async fn get_auth_preference(&self, _: Request<()>) -> Result<Response<AuthPreferenceV2>, Status> {
        Ok(Response::new(preference(&self.0)))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        Ok(Response::new(resources::list(&self.0, request.get_ref())?))
    }

    async fn create_app_session(
        &self,
        request: Request<CreateAppSessionRequest>,
    ) -> Result<Response<AppSessionResponse>, Status> {
        let (request, caller, state) = (request.into_inner(), self.0.caller()?, &self.0.state);
        if state.options.release.is_modern() {
            let refusal = Refusal::NotImplemented("sessions are made by GenerateUserCerts".to_owned());
            return Err(refusal.status());
        }
        if request.username != caller.user {
            let refusal = Refusal::AccessDenied("access denied: the session is for another user".to_owned());
            return Err(refusal.status());
        }
        let reaches_apps = caller.impersonator.is_some();
        let made = sessions::create(state, &caller.user, &request.public_addr, caller.not_after, reaches_apps)?;
        Ok(Response::new(AppSessionResponse { session: Some(made) }))
    }

    async fn get_app_session(
        &self,
        request: Request<GetAppSessionRequest>,
    ) -> Result<Response<AppSessionResponse>, Status> {
        let caller = self.0.caller()?;
        let mut session = sessions::find(&self.0.state, &request.get_ref().session_id)?;
        match &mut session.spec {
            Some(spec) if spec.user == caller.user => spec.r#priv.clear(),
            _ => return Err(Refusal::AccessDenied("access denied to another user's session".to_owned()).status()),
        }
        Ok(Response::new(AppSessionResponse { session: Some(session) }))
    }

    async fn is_mfa_required(
        &self,
        _: Request<IsMfaRequiredRequest>,
    ) -> Result<Response<IsMfaRequiredResponse>, Status> {
        self.0.caller()?;
        Ok(Response::new(IsMfaRequiredResponse { required: false, mfa_required: 2 }))
    }

    async fn watch_events(&self, request: Request<Watch>) -> Result<Response<Self::WatchEventsStream>, Status> {
        Ok(Response::new(Box::pin(watch::open(&self.0, request.into_inner())?)))
    }
}

/// How clients are to authenticate, as far as agents look at it: the suite.
pub(crate) fn preference(connection: &Connection) -> AuthPreferenceV2 {
    let suite = connection.state.options.suite().map_or(0, |suite| suite as i32);
    AuthPreferenceV2 {
        kind: "cluster_auth_preference".to_owned(),
        version: "v2".to_owned(),
        metadata: Some(Metadata { name: "cluster-auth-preference".to_owned(), ..Metadata::default() }),
        spec: Some(AuthPreferenceSpecV2 { signature_algorithm_suite: suite }),
        ..AuthPreferenceV2::default()
    }
}
