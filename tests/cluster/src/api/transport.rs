//! `teleport.transport.v1.TransportService`: SSH to hosts behind the proxy, raw bytes in messages.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{grpc::Connection, refusal::Refusal};
use crate::wire::teleport::transport::v1::{
    ClusterDetails, Frame, GetClusterDetailsRequest, GetClusterDetailsResponse, ProxySshRequest, ProxySshResponse,
    transport_service_server::TransportService,
};

/// Bytes of one message.
const CHUNK: usize = 16 << 10;

/// The service for one connection.
pub(crate) struct TransportApi(pub Arc<Connection>);

#[tonic::async_trait]
impl TransportService for TransportApi {
    type ProxySSHStream = ReceiverStream<Result<ProxySshResponse, Status>>;

    async fn get_cluster_details(
        &self,
        _: Request<GetClusterDetailsRequest>,
    ) -> Result<Response<GetClusterDetailsResponse>, Status> {
        self.0.caller()?;
        Ok(Response::new(GetClusterDetailsResponse { details: Some(ClusterDetails::default()) }))
    }

    async fn proxy_ssh(
        &self,
        request: Request<Streaming<ProxySshRequest>>,
    ) -> Result<Response<Self::ProxySSHStream>, Status> {
        self.0.caller()?;
        let mut heard = request.into_inner();
        let first = heard.message().await?.and_then(|message| message.dial_target);
        let target = first.ok_or_else(|| Refusal::BadParameter("first frame must contain a dial target".to_owned()))?;
        let address = self.find(&target.host_port, &target.cluster)?;
        let host = TcpStream::connect(&address).await.map_err(|error| Refusal::Internal(error.to_string()))?;
        let (mut from_host, mut to_host) = host.into_split();
        let (say, said) = mpsc::channel(4);
        // Nothing of the host goes with it: clients take this message as the news that it is there.
        let there = ProxySshResponse { details: Some(ClusterDetails::default()), ssh: None };
        say.try_send(Ok(there)).map_err(|error| Refusal::Internal(error.to_string()))?;
        tokio::spawn(async move {
            while let Ok(Some(message)) = heard.message().await {
                let payload = message.ssh.map(|frame| frame.payload).unwrap_or_default();
                if to_host.write_all(&payload).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = from_host.read(&mut buffer).await {
                let ssh = Some(Frame { payload: buffer[..length].to_vec() });
                if say.send(Ok(ProxySshResponse { details: None, ssh })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

impl TransportApi {
    /// Where a host listens that is known by its name; the port does not matter here.
    fn find(&self, host_port: &str, cluster: &str) -> Result<String, Refusal> {
        let state = &self.0.state;
        let name = host_port.rsplit_once(':').map_or(host_port, |(name, _)| name);
        let registry = state.registry();
        let found = registry.hosts.get(name).filter(|_| cluster == state.options.cluster_name).cloned();
        // As a version 15 proxy says it.
        let text = "failed to dial target host\n\tdirect dialing to nodes not found in inventory is not supported";
        found.ok_or_else(|| Refusal::NotFound(text.to_owned()))
    }
}
