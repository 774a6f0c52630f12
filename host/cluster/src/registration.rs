//! What the cluster gets to see of one attempt to join, whatever the protocol.

use identity::{Attempt, Failure, FailureKind, JoinProof, Joining, Opening, Timestamp};

use crate::wire::types::RegisterUsingTokenRequest;

/// Methods whose challenge we know how to carry (wire §c.1, §c.2, §d.2).
const CHALLENGED: [&str; 2] = ["azure", "iam"];

/// One attempt to join, on as many routes as it takes.
pub(crate) struct Registration<'a> {
    joining: Joining<'a>,
    expires: Timestamp,
    /// Empty for methods without one.
    id_token: String,
}

/// [`JoinProof::Azure`].
pub(crate) struct AzureProof {
    pub(crate) attested_data: Vec<u8>,
    pub(crate) access_token: String,
    pub(crate) intermediate: Vec<u8>,
}

impl<'a> Registration<'a> {
    /// Asks the plugin for its proof, where no challenge comes first: a plugin that cannot prove anything costs no connection.
    pub(crate) async fn new(joining: Joining<'a>, now: Timestamp) -> Result<Self, Failure> {
        let expires = now.plus(joining.ttl);
        let mut this = Self { joining, expires, id_token: String::new() };
        let method = this.method().to_owned();
        match this.joining.method.description().opening {
            Opening::Challenge if CHALLENGED.contains(&method.as_str()) => {}
            Opening::Challenge => return Err(unsupported(&method)),
            Opening::Immediate => match this.prove(None).await? {
                JoinProof::Secret => {}
                JoinProof::IdToken(jwt) => this.id_token = jwt.trim().to_owned(),
                _ => return Err(unsupported(&method)),
            },
        }
        Ok(this)
    }

    /// Name on the wire.
    pub(crate) fn method(&self) -> &str {
        &self.joining.method.description().method
    }

    /// Does the cluster speak first?
    pub(crate) fn is_challenged(&self) -> bool {
        self.joining.method.description().opening == Opening::Challenge
    }

    /// The token's name, or the secret itself.
    pub(crate) fn token(&self) -> &str {
        &self.joining.token
    }

    /// The platform's JWT; empty for methods without one.
    pub(crate) fn id_token(&self) -> &str {
        &self.id_token
    }

    /// The key to certify.
    pub(crate) fn key(&self) -> &identity::PublicKey {
        self.joining.key
    }

    /// Wanted end of the certificates.
    pub(crate) fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The plugin's answer to a challenge: attested document and access token (wire §c.1).
    pub(crate) async fn azure(&self, challenge: String) -> Result<AzureProof, Failure> {
        match self.prove(Some(challenge)).await? {
            JoinProof::Azure { attested_data, access_token, intermediate } => {
                Ok(AzureProof { attested_data, access_token, intermediate })
            }
            _ => Err(self.other_kind("an attested document")),
        }
    }

    /// The plugin's answer to a challenge: a signed `sts:GetCallerIdentity` request (wire §c.3).
    pub(crate) async fn iam(&self, challenge: String) -> Result<Vec<u8>, Failure> {
        match self.prove(Some(challenge)).await? {
            JoinProof::Iam(request) => Ok(request),
            _ => Err(self.other_kind("a signed request")),
        }
    }

    /// The message that every legacy protocol carries (wire §b.1).
    pub(crate) fn legacy(&self) -> RegisterUsingTokenRequest {
        RegisterUsingTokenRequest {
            role: "Bot".into(),
            token: self.token().to_owned(),
            public_tls_key: self.key().pem().into_bytes(),
            public_ssh_key: format!("{}\n", self.key().ssh_line()).into_bytes(),
            id_token: self.id_token.clone(),
            expires: Some(self.expires_proto()),
            ..RegisterUsingTokenRequest::default()
        }
    }

    pub(crate) fn expires_proto(&self) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: self.expires.0, nanos: 0 }
    }

    async fn prove(&self, challenge: Option<String>) -> Result<JoinProof, Failure> {
        // A plugin never sees a secret: the name goes in only where the token is not one (wire §c.3).
        let token_name = if self.method() == "token" { String::new() } else { self.token().to_owned() };
        self.joining.method.prove(self.joining.config, Attempt { token_name, challenge }).await
    }

    fn other_kind(&self, wanted: &str) -> Failure {
        let message = format!("the plugin of join method `{}` did not answer with {wanted}", self.method());
        Failure::new(FailureKind::Plugin, message)
    }
}

fn unsupported(method: &str) -> Failure {
    Failure::new(FailureKind::Unsupported, format!("join method `{method}` is not supported yet"))
}
