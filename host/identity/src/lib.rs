//! The nouns and traits of the agent: what every other room speaks of, and nothing that touches a file, a socket or a runtime.
//!
//! * [`Identity`]: a key and certificates that belong together, valid by type.
//! * [`Target`], [`OutputPlan`], [`Material`], [`Piece`], [`OutputFile`]: the life of one output, from wish to files.
//! * [`Cluster`], [`Session`], [`JoinMethod`], [`Output`], [`Format`], [`Destination`], [`Clock`], [`Monitor`]: what the loops of `renewal` drive,
//!   so that each of them can be a fake in a test.
//! * [`Failure`]: what went wrong and who has to act; its kind decides about retries.

mod authority;
mod certificate;
mod clock;
mod cluster;
mod destination;
mod failure;
mod heartbeat;
mod identity;
mod key;
mod monitor;
mod output;
mod path;
mod plugin;
mod ssh;
mod store;
mod suite;

pub use authority::{Authorities, Authority};
pub use certificate::{CertificateError, Subject, TlsCertificate, pem_certificates, spki_pin, verify_chain};
pub use clock::{Clock, SystemClock, Timestamp};
pub use cluster::{Cluster, ClusterInfo, Issued, Joining, Order, Session};
pub use destination::Destination;
pub use failure::{Failure, FailureKind};
pub use heartbeat::{Health, Heartbeat, ServiceHealth};
pub use identity::{Certificates, Identity};
pub use key::{KeyAlgorithm, KeyEncoding, KeyError, PrivateKey, PublicKey};
pub use monitor::{IDENTITY_SERVICE, Monitor, Unmonitored};
pub use output::{FormatUse, Material, OutputFile, OutputPlan, Piece, RenderedFile, Target, assemble, verify_written};
pub use path::RelativePath;
pub use plugin::{
    Attempt, Format, Formats, JOIN_METHODS, JoinMethod, JoinProof, MethodDescription, Opening, Output,
    OutputDescription,
};
pub use ssh::SshCertificate;
pub use store::{RENEWAL_FILE, STORE_FILES, Stored, load, token_hash};
pub use suite::Suite;
