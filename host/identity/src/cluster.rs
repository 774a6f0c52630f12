use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use zeroize::Zeroizing;

use crate::{
    Authorities, Certificates, Failure, Heartbeat, Identity, JoinMethod, PublicKey, SshCertificate, Suite, Target,
    TlsCertificate,
};

/// What the cluster says of itself (wire §a.2, `PingResponse`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterInfo {
    /// Its name.
    pub name: String,
    /// `server_version`, such as `15.0.0-dev`.
    pub version: String,
    /// `host:port` that the proxy advertises; empty where it advertises none.
    pub proxy: String,
    /// Which keys to make.
    pub suite: Suite,
}

/// One attempt to join.
pub struct Joining<'a> {
    /// Supplies the proof.
    pub method: &'a dyn JoinMethod,
    /// The method's configuration, JSON.
    pub config: &'a str,
    /// Value (method `token`) or name of the token.
    pub token: Zeroizing<String>,
    /// The key to certify.
    pub key: &'a PublicKey,
    /// Wanted life of the certificates; the cluster caps it.
    pub ttl: Duration,
}

/// What is asked for one output.
#[derive(Debug, Clone)]
pub struct Order {
    /// What the certificate is for.
    pub target: Target,
    /// Roles to impersonate; empty means all that the bot may.
    pub roles: Vec<String>,
    /// Wanted life; the cluster caps it.
    pub ttl: Duration,
    /// The key to certify: its private half lands in the output's files.
    pub key: PublicKey,
}

/// What came back for one output.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The routed certificate; none for an SSH host.
    pub tls: Option<TlsCertificate>,
    /// The SSH certificate, where the cluster issued one: of a user, or of an SSH host.
    pub ssh: Option<SshCertificate>,
}

/// A Teleport cluster, seen from outside: joined and connected to, by whichever route works.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Joins: proves who this machine is and receives the first certificates (wire §b–d).
    ///
    /// # Errors
    /// One failure that names every address tried and why each failed.
    async fn join(&self, joining: Joining<'_>) -> Result<Certificates, Failure>;
    /// Opens the one connection of an identity and proves that the cluster accepts it.
    ///
    /// # Errors
    /// As [`Cluster::join`]; [`crate::FailureKind::Expired`] where the certificate's time is over.
    async fn connect(&self, identity: Arc<Identity>) -> Result<Arc<dyn Session>, Failure>;
}

/// An open connection as the bot. Cheap to share; requests in flight are bounded inside.
#[async_trait]
pub trait Session: Send + Sync {
    /// What the cluster said when the connection was opened.
    fn info(&self) -> &ClusterInfo;
    /// Proves that the connection still carries calls: what is asked next is then not asked of a connection that broke unseen.
    ///
    /// # Errors
    /// As any call.
    async fn ping(&self) -> Result<(), Failure>;
    /// Renews the bot's own certificates (wire §g.2). Counts the generation up: never repeat it blindly.
    ///
    /// # Errors
    /// [`crate::FailureKind::Revoked`] for a lock or a generation mismatch, [`crate::FailureKind::AnswerLost`] where the request may have been counted.
    async fn renew(&self, key: &PublicKey, ttl: Duration) -> Result<Certificates, Failure>;
    /// Joins again over this connection, so that the cluster knows the bot by its instance (wire §d.1). Clusters before version 16 keep no
    /// instances.
    ///
    /// # Errors
    /// [`crate::FailureKind::Unsupported`] where [`Cluster::join`] is the way; otherwise as there.
    async fn rejoin(&self, joining: Joining<'_>) -> Result<Certificates, Failure> {
        let message = format!(
            "this cluster keeps no bot instances: join method `{}` joins anew",
            joining.method.description().method
        );
        Err(Failure::new(crate::FailureKind::Unsupported, message))
    }
    /// Issues the certificate of one output: impersonation (shared by equal roles), look-up, application session until visible, route
    /// (wire §f.6–f.8). Returns once the certificate is usable.
    ///
    /// # Errors
    /// Names the output's target and what to change.
    async fn issue(&self, order: &Order) -> Result<Issued, Failure>;
    /// All authorities; asked of the cluster at most once a pass.
    ///
    /// # Errors
    /// As any call.
    async fn authorities(&self) -> Result<Arc<Authorities>, Failure>;
    /// Says how the bot is. False where the cluster is too old to listen.
    ///
    /// # Errors
    /// As any call.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool, Failure> {
        let _ = heartbeat;
        Ok(false)
    }
    /// One item for every step of an authority rotation that calls for a renewal (wire §f.9). Ends when the connection does.
    ///
    /// # Errors
    /// As any call.
    async fn rotations(&self) -> Result<BoxStream<'static, Result<(), Failure>>, Failure>;
}
