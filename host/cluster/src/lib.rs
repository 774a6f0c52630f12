//! The wire: how a Teleport cluster is found, trusted, joined and asked (`spec/wire.md`).
//!
//! [`TeleportCluster`] implements [`identity::Cluster`]. What differs between versions is decided here, in [`version`], and nowhere else.

mod address;
mod auth_http;
mod channel;
mod connect;
mod dialer;
mod discovery;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod heartbeat;
mod http_join;
mod issue;
mod join;
mod join_legacy;
mod join_stream;
mod ping;
mod reach;
mod registration;
mod resources;
mod session;
mod sessions;
mod ssh;
mod trust;
mod upgrade;
mod version;
mod websocket;

/// Messages and clients made from our own protobuf files, one module for each package.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    tonic::include_proto!("wire");
}

pub use address::{Address, AddressKind};
pub use connect::{ClusterConfig, TeleportCluster};
pub use dialer::{ProxyClient, ProxyDialer, Stream};
pub use resources::{Resource, ResourceKind};
