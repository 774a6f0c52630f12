use std::sync::Arc;

use async_trait::async_trait;

use crate::{Failure, Material, OutputPlan, PrivateKey, RenderedFile};

/// Every join method that some version of the cluster knows (surface §B.3). Which of them work here, the catalog decides.
pub const JOIN_METHODS: [&str; 18] = [
    "azure",
    "azure_devops",
    "bitbucket",
    "bound_keypair",
    "circleci",
    "ec2",
    "env0",
    "gcp",
    "generic_oidc",
    "github",
    "gitlab",
    "iam",
    "kubernetes",
    "oracle",
    "spacelift",
    "terraform_cloud",
    "token",
    "tpm",
];

/// Does the cluster open the conversation? (`tbot:join/method.opening`)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The proof goes out at once.
    Immediate,
    /// The cluster sends a challenge first.
    Challenge,
}

/// What a join plugin says of itself (`tbot:join/method.description`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodDescription {
    /// Name on the wire, as `onboarding.join_method` spells it.
    pub method: String,
    /// Who speaks first.
    pub opening: Opening,
    /// The configuration keys it knows.
    pub keys: Vec<String>,
}

/// What the host tells a join plugin (`tbot:join/method.attempt`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name of the token resource. Empty for the method whose token is itself the secret: a plugin never sees one.
    pub token_name: String,
    /// The cluster's challenge, where it sent one.
    pub challenge: Option<String>,
}

/// Evidence for the cluster, one case for every kind that the wire knows (`tbot:join/method.proof`).
#[derive(Clone, PartialEq, Eq)]
pub enum JoinProof {
    /// The token is the secret.
    Secret,
    /// A JWT signed by the platform.
    IdToken(String),
    /// Azure: attested document and access token (wire §c.1).
    Azure {
        /// The document as the metadata service sent it, byte for byte.
        attested_data: Vec<u8>,
        /// The managed identity's token.
        access_token: String,
        /// The certificates between the document's signer and its root, DER, one after another; empty where they are not known (wire §d.4).
        intermediate: Vec<u8>,
    },
    /// A signed `sts:GetCallerIdentity` request.
    Iam(Vec<u8>),
    /// Oracle Cloud: signed headers.
    Oracle(Vec<u8>),
    /// Instance identity document.
    Ec2(Vec<u8>),
}

impl std::fmt::Debug for JoinProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinProof(…)")
    }
}

/// How a machine proves who it is.
#[async_trait]
pub trait JoinMethod: Send + Sync {
    /// What the method says of itself.
    fn description(&self) -> &MethodDescription;
    /// Makes the evidence for one attempt; `config` is JSON.
    ///
    /// # Errors
    /// What the plugin reported, or [`crate::FailureKind::Plugin`] where it misbehaved.
    async fn prove(&self, config: &str, attempt: Attempt) -> Result<JoinProof, Failure>;
}

/// What an output or format plugin says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputDescription {
    /// The configuration keys it knows: others are reported to the operator.
    pub keys: Vec<String>,
}

/// What certificate to ask for, and the files made of it.
#[async_trait]
pub trait Output: Send + Sync {
    /// What the plugin says of itself.
    fn description(&self) -> &OutputDescription;
    /// Pure: needs no secret and no network. `config` is JSON, `directory` the absolute path of the destination where it has one.
    ///
    /// # Errors
    /// What the plugin reported, or [`crate::FailureKind::Plugin`] where it misbehaved.
    async fn plan(&self, config: &str, directory: Option<&str>) -> Result<OutputPlan, Failure>;
    /// The files, with references in place of the key. `key` itself is shown to a guest only where that is granted.
    ///
    /// # Errors
    /// As [`Output::plan`].
    async fn render(&self, config: &str, material: &Material, key: &PrivateKey) -> Result<Vec<RenderedFile>, Failure>;
}

/// How additional files look. An output names the formats it wants ([`crate::OutputPlan::formats`]).
#[async_trait]
pub trait Format: Send + Sync {
    /// What the plugin says of itself.
    fn description(&self) -> &OutputDescription;
    /// The paths that [`Format::render`] will return.
    ///
    /// # Errors
    /// What the plugin reported, or [`crate::FailureKind::Plugin`] where it misbehaved.
    async fn files(&self, config: &str, directory: Option<&str>) -> Result<Vec<String>, Failure>;
    /// The files, with references in place of the key. `key` itself is shown to a guest only where that is granted.
    ///
    /// # Errors
    /// As [`Format::files`].
    async fn render(&self, config: &str, material: &Material, key: &PrivateKey) -> Result<Vec<RenderedFile>, Failure>;
}

/// Where an output's formats come from.
#[async_trait]
pub trait Formats: Send + Sync {
    /// The format of that name.
    ///
    /// # Errors
    /// [`crate::FailureKind::InvalidConfig`] where there is none.
    async fn format(&self, name: &str) -> Result<Arc<dyn Format>, Failure>;
}
