//! Keys and certificates as Teleport makes them: X.509 with identity in the subject, and OpenSSH certificates.

pub(crate) mod authority;
pub(crate) mod caller;
pub(crate) mod issue;
pub(crate) mod private_key;
pub(crate) mod public_key;
pub(crate) mod ssh;
pub(crate) mod subject;
pub(crate) mod x509;
