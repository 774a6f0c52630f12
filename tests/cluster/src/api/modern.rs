//! What agents of version 17 and later ask of services of its own: the suite, and the leaf clusters.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{auth_service, grpc::Connection};
use crate::wire::{
    teleport::{
        clusterconfig::v1::{GetAuthPreferenceRequest, cluster_config_service_server::ClusterConfigService},
        presence::v1::{
            ListRemoteClustersRequest, ListRemoteClustersResponse, RemoteClusterStatusV3, RemoteClusterV3,
            presence_service_server::PresenceService,
        },
    },
    types::{AuthPreferenceV2, Metadata},
};

/// Both services for one connection.
pub(crate) struct ModernApi(pub Arc<Connection>);

#[tonic::async_trait]
impl ClusterConfigService for ModernApi {
    async fn get_auth_preference(
        &self,
        _: Request<GetAuthPreferenceRequest>,
    ) -> Result<Response<AuthPreferenceV2>, Status> {
        Ok(Response::new(auth_service::preference(&self.0)))
    }
}

#[tonic::async_trait]
impl PresenceService for ModernApi {
    /// All on one page.
    async fn list_remote_clusters(
        &self,
        _: Request<ListRemoteClustersRequest>,
    ) -> Result<Response<ListRemoteClustersResponse>, Status> {
        let registry = self.0.state.registry();
        let leaf = |name: &String| RemoteClusterV3 {
            kind: "remote_cluster".to_owned(),
            version: "v3".to_owned(),
            metadata: Some(Metadata { name: name.clone(), namespace: "default".to_owned(), ..Metadata::default() }),
            status: Some(RemoteClusterStatusV3 { connection: "online".to_owned() }),
            ..RemoteClusterV3::default()
        };
        let remote_clusters = registry.leaves.keys().map(leaf).collect();
        Ok(Response::new(ListRemoteClustersResponse { remote_clusters, ..Default::default() }))
    }
}
