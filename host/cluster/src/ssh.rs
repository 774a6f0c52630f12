//! SSH to a host behind the proxy: what an `ssh_config`'s `ProxyCommand` is made of. Raw bytes in both directions travel as messages of one call.

use std::io;

use identity::{Failure, FailureKind, PrivateKey, TlsCertificate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::channel::{API_DOMAIN, open_channel};
use crate::dialer::Stream;
use crate::discovery::{find, web_client};
use crate::error::status;
use crate::trust::{ClientCertificate, Trust, client_config};
use crate::version::Major;
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
        let channel = match open_channel(&self.route, API_DOMAIN, config).await {
            Ok(channel) => channel,
            // An older proxy shows another certificate under a protocol name that it does not know.
            Err(error) => {
                let refused = || error.failure.context(format_args!("proxy {}", self.route));
                return Err(self.too_old_for_ssh().await.unwrap_or_else(refused));
            }
        };
        let (say, said) = mpsc::channel(WAITING);
        let target = TargetHost { host_port: host_port.to_owned(), cluster: cluster.to_owned() };
        let first = ProxySshRequest { dial_target: Some(target), ssh: None };
        say.try_send(first).map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        let mut client = TransportServiceClient::new(channel);
        let heard = client.proxy_ssh(ReceiverStream::new(said)).await;
        let mut heard = heard.map_err(|refused| status(&self.route, &refused))?.into_inner();
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

    /// The failure to tell of, where the proxy says that it is of a version without this service.
    async fn too_old_for_ssh(&self) -> Option<Failure> {
        let client = web_client(&self.route, self.insecure).ok()?;
        let version = find(&self.route, &client).await.ok()?.version;
        (!Major::parse(&version).ssh_by_grpc()).then(|| {
            let message = format!(
                "the cluster is of version {version}, and its proxy offers SSH to `tbot` from version 13 on: let `ProxyCommand` run `tsh proxy ssh` of the cluster's version, with the output's file `identity` (`-i`), or update the cluster"
            );
            Failure::new(FailureKind::Unsupported, message)
        })
    }
}
