//! Evidence of where a machine runs: what clouds and CI platforms hand out, made here and really verified.
//!
//! A test makes a platform ([`AzureCloud`], [`TokenIssuer`], [`AwsKey`]), gives it to [`crate::Options::platforms`] so that
//! the cluster trusts it, and lets the agent fetch evidence from it.

pub(crate) mod aws;
pub(crate) mod azure;
pub(crate) mod imds;
pub(crate) mod jwt;
mod pkcs7;
pub(crate) mod rules;

use std::sync::Arc;

pub use aws::AwsKey;
pub use azure::{AzureCloud, VirtualMachine};
pub use imds::{ManagedIdentity, MetadataService};
pub use jwt::TokenIssuer;
pub use rules::{Allow, AzureRule, IamRule, IdTokenRules};

/// The platforms that a cluster trusts.
#[derive(Debug, Clone, Default)]
pub struct Platforms {
    /// Signs attested documents and access tokens.
    pub azure: Option<Arc<AzureCloud>>,
    /// Sign the tokens of CI platforms, Kubernetes and Google Cloud.
    pub issuers: Vec<Arc<TokenIssuer>>,
    /// Whose signed requests Amazon would answer.
    pub aws: Vec<AwsKey>,
}
