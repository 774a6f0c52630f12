//! The agent's own client against stand-ins: what every test of it shares.

mod hostile;
mod joining;
mod routes;
mod sessions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Address, AddressKind, ClusterConfig, TeleportCluster};
use identity::{
    Attempt, Certificates, Cluster, Failure, Identity, JoinMethod, JoinProof, Joining, KeyAlgorithm, MethodDescription,
    Opening, PrivateKey, SystemClock,
};
use stand_in::StandIn;
use zeroize::Zeroizing;

/// By which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The auth service, with the authority's pin.
    Auth,
    /// The proxy, whose web certificate no machine knows.
    Proxy,
}

/// Both.
pub const DOORS: [Door; 2] = [Door::Auth, Door::Proxy];

/// What a method proves, given the challenge.
pub type Prove = Box<dyn Fn(Option<String>) -> Result<JoinProof, Failure> + Send + Sync>;

/// A join method in place of a plugin.
pub struct Method {
    description: MethodDescription,
    prove: Prove,
    /// Every attempt it was asked for.
    pub asked: Mutex<Vec<Attempt>>,
}

impl Method {
    /// What it says of itself, and what it does.
    pub fn new(method: &str, opening: Opening, prove: Prove) -> Self {
        let description = MethodDescription { method: method.to_owned(), opening, keys: vec![] };
        Self { description, prove, asked: Mutex::default() }
    }

    /// Method `token`.
    pub fn secret() -> Self {
        Self::new("token", Opening::Immediate, Box::new(|_| Ok(JoinProof::Secret)))
    }
}

#[async_trait]
impl JoinMethod for Method {
    fn description(&self) -> &MethodDescription {
        &self.description
    }

    async fn prove(&self, _: &str, attempt: Attempt) -> Result<JoinProof, Failure> {
        let challenge = attempt.challenge.clone();
        self.asked.lock().unwrap().push(attempt);
        (self.prove)(challenge)
    }
}

/// A client that enters by one door.
pub fn client(stand_in: &StandIn, door: Door) -> TeleportCluster {
    let (port, kind) = match door {
        Door::Auth => (stand_in.auth_addr().port(), AddressKind::Auth),
        Door::Proxy => (stand_in.proxy_addr().port(), AddressKind::Proxy),
    };
    TeleportCluster::new(ClusterConfig {
        address: Address { host: "localhost".into(), port: Some(port), kind },
        ca_pins: if door == Door::Auth { vec![stand_in.ca_pin().unwrap()] } else { vec![] },
        authority_pem: None,
        insecure: door == Door::Proxy,
        clock: Arc::new(SystemClock),
    })
}

/// Joins with a new key.
pub async fn join(client: &TeleportCluster, method: &Method, token: &str) -> Result<Arc<Identity>, Failure> {
    let key = Arc::new(PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
    let token = Zeroizing::new(token.to_owned());
    let ttl = Duration::from_secs(600);
    let joining = Joining { method, config: "{}", token, key: key.public_key(), ttl };
    let certificates: Certificates = client.join(joining).await?;
    let now = identity::Clock::now(&SystemClock);
    Ok(Arc::new(Identity::new(key, certificates, now).unwrap()))
}
