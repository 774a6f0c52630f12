//! A stand-in Teleport cluster for tests: real TLS, real certificates, the wire of a real cluster, and faults on demand.
//!
//! It must satisfy the original agent as well as ours, so it follows recordings of a real cluster (`tests/recordings`) and
//! the wire specification, never our client. Left out: a second key exchange in the SSH tunnel.

mod api;
mod control;
pub mod evidence;
mod faults;
mod net;
mod options;
mod pki;
mod ssh;
mod state;

/// Generated from the agent's own protobuf files.
#[allow(missing_docs, dead_code, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub use api::bot_instances::Heartbeat;
pub use control::Control;
pub use faults::{Fault, Hostile, Request};
pub use net::{backend::Greeter, database::DatabaseFiles};
pub use options::{Options, Release, Suite};
pub use pki::authority::{AuthorityKind, RotationPhase};
pub use state::Token;

/// A running cluster. Dropping it closes its ports and connections.
pub struct StandIn {
    state: Arc<state::State>,
    ports: state::Ports,
}

impl StandIn {
    /// Makes the authorities and opens both ports. Needs a Tokio runtime, which must outlive the stand-in.
    ///
    /// # Errors
    /// When keys cannot be made or a port is taken.
    pub async fn start(options: Options) -> Result<Self> {
        let state = tokio::task::spawn_blocking(move || state::State::new(options)).await??;
        let state = Arc::new(state);
        net::listener::open(&state).await?;
        let ports = *state.ports.get().context("no port is open")?;
        Ok(Self { state, ports })
    }

    /// `127.0.0.1:PORT` of the auth service.
    #[must_use]
    pub fn auth_addr(&self) -> SocketAddr {
        self.ports.auth
    }

    /// `127.0.0.1:PORT` of the proxy; its web certificates are for `localhost`, every name below it, and 127.0.0.1.
    #[must_use]
    pub fn proxy_addr(&self) -> SocketAddr {
        self.ports.proxy
    }

    /// The pin of the host authority, `sha256:HEX`: what a client gives to trust the auth port.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn ca_pin(&self) -> Result<String> {
        use der::Encode;
        let spki =
            self.state.authority(AuthorityKind::Host, |host| Ok(host.active.tls.public().to_spki()?.to_der()?))?;
        Ok(format!("sha256:{}", state::hex(&Sha256::digest(spki))))
    }

    /// The authority of the proxy's web certificate, PEM: what a client trusts by `SSL_CERT_FILE`.
    #[must_use]
    pub fn web_ca_pem(&self) -> &str {
        &self.state.web.pem
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.state.options.cluster_name
    }

    /// The handle that adds resources and sets faults.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(self.state.clone())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        net::listener::close(&self.state);
    }
}

#[cfg(test)]
mod tests;
