//! `teleport.trust.v1.TrustService`.

use std::{sync::Arc, time::SystemTime};

use tonic::{Request, Response, Status};

use super::{grpc::Connection, refusal::Refusal, resources};
use crate::{
    AuthorityKind,
    pki::{public_key::PublicKey, ssh, x509::BACKDATE},
    wire::{
        teleport::trust::v1::{
            GenerateHostCertRequest, GenerateHostCertResponse, GetCertAuthoritiesRequest, GetCertAuthoritiesResponse,
            GetCertAuthorityRequest, trust_service_server::TrustService,
        },
        types::CertAuthorityV2,
    },
};

/// Types a cluster knows besides those a stand-in keeps keys for.
const WITHOUT_KEYS: &[&str] = &["openssh", "jwt", "saml_idp", "oidc_idp"];

/// The service for one connection.
pub(crate) struct TrustApi(pub Arc<Connection>);

#[tonic::async_trait]
impl TrustService for TrustApi {
    async fn get_cert_authority(
        &self,
        request: Request<GetCertAuthorityRequest>,
    ) -> Result<Response<CertAuthorityV2>, Status> {
        let request = request.into_inner();
        Ok(Response::new(find_one(&self.0, &request.r#type, &request.domain, request.include_key)?))
    }

    async fn get_cert_authorities(
        &self,
        request: Request<GetCertAuthoritiesRequest>,
    ) -> Result<Response<GetCertAuthoritiesResponse>, Status> {
        let request = request.into_inner();
        let found = find(&self.0, &request.r#type, request.include_key)?;
        Ok(Response::new(GetCertAuthoritiesResponse { cert_authorities_v2: found }))
    }

    async fn generate_host_cert(
        &self,
        request: Request<GenerateHostCertRequest>,
    ) -> Result<Response<GenerateHostCertResponse>, Status> {
        let line = host_certificate(&self.0, &request.into_inner())?;
        Ok(Response::new(GenerateHostCertResponse { ssh_certificate: line.into_bytes() }))
    }
}

/// An SSH host certificate for principals named in full, as the line of a file (wire §h.4).
pub(crate) fn host_certificate(connection: &Connection, request: &GenerateHostCertRequest) -> Result<String, Refusal> {
    let bad = |error: anyhow::Error| Refusal::BadParameter(format!("{error:#}"));
    let state = &connection.state;
    let key = PublicKey::from_authorized_line(&request.key).map_err(bad)?;
    let ttl = request.ttl.and_then(|ttl| std::time::Duration::try_from(ttl).ok()).unwrap_or_default();
    let authority = state.authority(AuthorityKind::Host, |host| Ok(host.active.clone()))?;
    let now = SystemTime::now();
    let template = ssh::Template {
        kind: ssh::Kind::Host,
        key: &key,
        key_id: "",
        principals: &request.principals,
        valid_after: now - BACKDATE,
        valid_before: now + ttl,
        extensions: vec![
            ("x-teleport-authority", request.cluster_name.clone()),
            ("x-teleport-role", request.role.clone()),
        ],
    };
    let signer = authority.ssh.as_ref().ok_or_else(|| Refusal::Internal("no SSH key".to_owned()))?;
    Ok(ssh::sign(template, signer)?.to_line())
}

/// The authority of a kind for one cluster.
pub(crate) fn find_one(
    connection: &Connection,
    kind: &str,
    cluster: &str,
    with_keys: bool,
) -> Result<CertAuthorityV2, Refusal> {
    let mut found = find(connection, kind, with_keys)?.into_iter();
    let named = found.find(|authority| authority.metadata.as_ref().is_some_and(|metadata| metadata.name == cluster));
    named.ok_or_else(|| Refusal::NotFound(format!("key \"/authorities/{kind}/{cluster}\" is not found")))
}

/// The authorities of a kind, the cluster's own first; private keys are nobody's.
pub(crate) fn find(connection: &Connection, kind: &str, with_keys: bool) -> Result<Vec<CertAuthorityV2>, Refusal> {
    if with_keys {
        let text = "access denied to perform action \"read\" on \"cert_authority\"";
        return Err(Refusal::AccessDenied(text.to_owned()));
    }
    let state = &connection.state;
    let own = &state.options.cluster_name;
    let found = state
        .authorities()
        .iter()
        .find(|authority| authority.kind.name() == kind)
        .map(|authority| resources::authority(authority, own));
    if found.is_none() && !WITHOUT_KEYS.contains(&kind) {
        return Err(Refusal::BadParameter(format!("{kind:?} authority type is not supported")));
    }
    let registry = state.registry();
    let leaves = registry.leaves.iter().filter(|(_, authority)| authority.kind.name() == kind);
    let leaves = leaves.map(|(name, authority)| resources::authority(authority, name));
    Ok(found.into_iter().chain(leaves).collect())
}
