//! SSH to a host behind the proxy: what an `ssh_config`'s `ProxyCommand` is made of. Raw bytes in both directions travel as messages of one call.

use std::io;

use identity::{Failure, FailureKind, PrivateKey, TlsCertificate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::channel::{API_DOMAIN, open_channel};
use crate::dialer::Stream;
use crate::error::status;
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::wire::teleport::transport::v1::transport_service_client::TransportServiceClient;
use crate::wire::teleport::transport::v1::{Frame, ProxySshRequest, TargetHost};
use crate::{ProxyDialer, error};

/// The protocol name under which a proxy serves this.
const PROTOCOL: &str = "teleport-proxy-ssh-grpc";
/// What is read at once, and the largest message sent.
const CHUNK: usize = 16 << 10;
/// Messages that wait for the network.
const WAITING: usize = 4;

impl ProxyDialer {
    /// Bytes to the SSH server at `host_port` of `cluster`; port 0 is wherever it listens. `authorities` are those of the cluster's hosts, PEM.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`] where the proxy is not reached, [`FailureKind::Unsupported`] before version 13, otherwise the proxy's refusal.
    pub async fn ssh(
        &self,
        tls: &TlsCertificate,
        key: &PrivateKey,
        authorities: Vec<String>,
        host_port: &str,
        cluster: &str,
    ) -> Result<Box<dyn Stream>, Failure> {
        let client = ClientCertificate { der: &tls.der, pkcs8: key.pkcs8_der() };
        let config = client_config(&Trust::Only(authorities), Some(client), &[PROTOCOL, "h2"])?;
        let opened = open_channel(&self.route, API_DOMAIN, config).await;
        let channel = opened.map_err(|e| e.failure.context("SSH by the proxy, which is there from version 13 on"))?;
        let (say, said) = mpsc::channel(WAITING);
        let target = TargetHost { host_port: host_port.to_owned(), cluster: cluster.to_owned() };
        let first = ProxySshRequest { dial_target: Some(target), ssh: None };
        say.try_send(first).map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        let mut client = TransportServiceClient::new(channel);
        let heard = client.proxy_ssh(ReceiverStream::new(said)).await.map_err(|refused| match refused.code() {
            tonic::Code::Unimplemented => {
                let message = "this cluster's proxy offers no SSH to programs: it does from version 13 on";
                Failure::new(FailureKind::Unsupported, message)
            }
            _ => status(&self.route, &refused),
        })?;
        let mut heard = heard.into_inner();
        let (near, far) = tokio::io::duplex(CHUNK);
        let (mut from_here, mut to_here) = tokio::io::split(far);
        tokio::spawn(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = from_here.read(&mut buffer).await {
                let ssh = Some(Frame { payload: buffer[..length].to_vec() });
                if say.send(ProxySshRequest { dial_target: None, ssh }).await.is_err() {
                    break;
                }
            }
        });
        let route = self.route.clone();
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                match message {
                    Ok(message) => {
                        let payload = message.ssh.map(|frame| frame.payload).unwrap_or_default();
                        if to_here.write_all(&payload).await.is_err() {
                            break;
                        }
                    }
                    Err(refused) => {
                        tracing::error!(target: "SSH", "{}", error::status(&route, &refused));
                        break;
                    }
                }
            }
            let _: io::Result<()> = to_here.shutdown().await;
        });
        Ok(Box::new(near))
    }
}
