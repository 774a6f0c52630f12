//! A cluster, plugins and destinations that obey the test.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use futures::stream::BoxStream;
use identity::*;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo};
use renewal::{Bot, BotSettings, OutputJob, OutputSettings};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// 2026-11-21T00:00:00Z.
const BEGIN: i64 = 1_795_219_200;

/// A wall clock that follows tokio's paused time.
pub struct TestClock(Instant);

impl TestClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN).plus(self.0.elapsed())
    }
}

/// Wanted life of every certificate.
const TTL: Duration = Duration::from_secs(3600);
/// How often everything is renewed.
pub const INTERVAL: Duration = Duration::from_secs(1200);

/// A bot with one output for each application and place.
pub async fn bot(
    cluster: &Arc<FakeCluster>,
    clock: &Arc<TestClock>,
    store: &Arc<FakeDestination>,
    outputs: &[(String, Arc<FakeDestination>)],
) -> Bot {
    let description = MethodDescription { method: "token".into(), opening: Opening::Immediate, keys: vec![] };
    let settings = BotSettings {
        cluster: cluster.clone(),
        method: Arc::new(FakeMethod(description)),
        method_config: "{}".into(),
        token: Arc::new(|| Ok(Some(Zeroizing::new("token".into())))),
        store: store.clone(),
        ttl: TTL,
        interval: INTERVAL,
        clock: clock.clone(),
        monitor: Arc::new(identity::Unmonitored),
    };
    let mut jobs = Vec::new();
    for (application, place) in outputs {
        let settings = OutputSettings {
            name: application.clone(),
            kind: "application".into(),
            options: application.clone(),
            roles: vec![],
            ttl: TTL,
            interval: INTERVAL,
            output: Arc::new(FakeOutput(Default::default())),
            destination: place.clone(),
            on_change: None,
            executable: "/usr/local/bin/tbot".into(),
        };
        jobs.push(OutputJob::new(settings, &NoFormats).await.unwrap());
    }
    Bot { settings, outputs: jobs }
}

/// What the test sets and looks at.
#[derive(Default)]
pub struct State {
    /// Everything that was asked, in order.
    pub log: Vec<String>,
    pub join: Option<Failure>,
    pub renew: Option<Failure>,
    /// A delegated method: its identities are not renewable. Joining again as the same instance meets this failure, where there is one.
    pub delegated: Option<Option<Failure>>,
    pub connect: Option<Failure>,
    pub ping: Option<Failure>,
    /// What a renewal answers is nothing that can be used.
    pub broken: bool,
    /// By application name.
    pub issue: HashMap<String, Failure>,
    /// By application name: what is wrong with what is issued.
    pub worse: HashMap<String, Worse>,
    /// How many seconds the cluster's clock is ahead.
    pub ahead: i64,
    /// How long a renewal takes.
    pub delay: Duration,
    pub heartbeats: Vec<Heartbeat>,
    pub heartbeat: Option<Failure>,
    generation: u64,
}

/// A certificate that must not take the place of a good one.
#[derive(Clone, Copy, Debug)]
pub enum Worse {
    Expired,
    NotYetValid,
    OtherCluster,
    OtherAuthority,
    OtherKey,
    SshExpired,
    NoHostAuthority,
    /// The answer never comes.
    Never,
}

pub struct FakeCluster {
    pub state: Arc<Mutex<State>>,
    clock: Arc<TestClock>,
    issuer: Arc<Issuer<'static, KeyPair>>,
    authority: String,
}

impl FakeCluster {
    pub fn new(clock: Arc<TestClock>) -> Arc<Self> {
        let (issuer, authority) = authority("test.example.com");
        Arc::new(Self { state: Arc::default(), clock, issuer: Arc::new(issuer), authority })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn count(&self, what: &str) -> usize {
        self.state().log.iter().filter(|line| line.starts_with(what)).count()
    }

    fn leaf(&self, key: &PublicKey, ttl: Duration, generation: Option<u64>) -> String {
        self.leaf_from(-60, key, ttl, generation, &self.issuer)
    }

    /// Valid from so many seconds after now.
    fn leaf_from(
        &self,
        from: i64,
        key: &PublicKey,
        ttl: Duration,
        generation: Option<u64>,
        issuer: &Issuer<'_, KeyPair>,
    ) -> String {
        let mut params = CertificateParams::default();
        let now = time::OffsetDateTime::from_unix_timestamp(self.clock.now().0).unwrap();
        params.not_before = now + time::Duration::seconds(from + self.state().ahead);
        params.not_after = params.not_before + Duration::from_secs(60) + ttl;
        params.distinguished_name.push(DnType::CommonName, "bot-test");
        if let Some(generation) = generation {
            params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 9999, 1, 13]), "true");
            params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 9999, 1, 14]), generation.to_string());
        }
        let key = SubjectPublicKeyInfo::from_der(key.spki_der()).unwrap();
        params.signed_by(&key, issuer).unwrap().pem()
    }

    fn certificates(&self, key: &PublicKey, ttl: Duration) -> Certificates {
        let generation = {
            let mut state = self.state();
            state.generation += 1;
            state.delegated.is_none().then_some(state.generation)
        };
        Certificates {
            ssh: ssh_certificate(key),
            tls: self.leaf(key, ttl, generation),
            tls_authorities: vec![self.authority.clone()],
            ssh_authorities: vec!["ssh-ed25519 AAAA\n".into()],
        }
    }
}

fn authority(cluster: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    let authority = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), authority)
}

fn refuse(failure: Option<&Failure>) -> Result<(), Failure> {
    failure.map_or(Ok(()), |failure| Err(failure.clone()))
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn join(&self, joining: Joining<'_>) -> Result<Certificates, Failure> {
        self.state().log.push("join".into());
        refuse(self.state().join.as_ref())?;
        Ok(self.certificates(joining.key, joining.ttl))
    }

    async fn connect(&self, identity: Arc<Identity>) -> Result<Arc<dyn Session>, Failure> {
        self.state().log.push(format!("connect {}", identity.tls.subject.generation()));
        refuse(self.state().connect.as_ref())?;
        let cluster = Arc::new(Self {
            state: self.state.clone(),
            clock: self.clock.clone(),
            issuer: self.issuer.clone(),
            authority: self.authority.clone(),
        });
        let info = ClusterInfo {
            name: "test.example.com".into(),
            version: "17.0.0".into(),
            proxy: "proxy:443".into(),
            suite: Suite::BalancedV1,
        };
        Ok(Arc::new(FakeSession { cluster, info }))
    }
}

struct FakeSession {
    cluster: Arc<FakeCluster>,
    info: ClusterInfo,
}

#[async_trait]
impl Session for FakeSession {
    fn info(&self) -> &ClusterInfo {
        &self.info
    }

    async fn ping(&self) -> Result<(), Failure> {
        refuse(self.cluster.state().ping.as_ref())
    }

    async fn renew(&self, key: &PublicKey, ttl: Duration) -> Result<Certificates, Failure> {
        self.cluster.state().log.push("renew".into());
        let delay = self.cluster.state().delay;
        tokio::time::sleep(delay).await;
        refuse(self.cluster.state().renew.as_ref())?;
        let certificates = self.cluster.certificates(key, ttl);
        match self.cluster.state().broken {
            true => Ok(Certificates { tls: "half a certifi".into(), ..certificates }),
            false => Ok(certificates),
        }
    }

    async fn rejoin(&self, joining: Joining<'_>) -> Result<Certificates, Failure> {
        self.cluster.state().log.push("rejoin".into());
        refuse(self.cluster.state().delegated.as_ref().and_then(Option::as_ref))?;
        Ok(self.cluster.certificates(joining.key, joining.ttl))
    }

    async fn issue(&self, order: &Order) -> Result<Issued, Failure> {
        let Target::Application(name) = &order.target else { panic!("only applications here") };
        self.cluster.state().log.push(format!("issue {name}"));
        refuse(self.cluster.state().issue.get(name))?;
        let worse = self.cluster.state().worse.get(name).copied();
        let leaf = |from, key: &PublicKey, issuer: &_| self.cluster.leaf_from(from, key, order.ttl, None, issuer);
        let ours = &self.cluster.issuer;
        let pem = match worse {
            Some(Worse::Expired) => leaf(-61 - i64::try_from(order.ttl.as_secs()).unwrap(), &order.key, ours),
            Some(Worse::NotYetValid) => leaf(3600, &order.key, ours),
            Some(Worse::OtherCluster) => leaf(-60, &order.key, &authority("other.example.com").0),
            Some(Worse::OtherAuthority) => leaf(-60, &order.key, &authority("test.example.com").0),
            Some(Worse::OtherKey) => {
                leaf(-60, PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap().public_key(), ours)
            }
            Some(Worse::Never) => std::future::pending().await,
            Some(Worse::SshExpired | Worse::NoHostAuthority) | None => leaf(-60, &order.key, ours),
        };
        let ssh = matches!(worse, Some(Worse::SshExpired)).then(|| {
            let mut ssh = SshCertificate::parse(&ssh_certificate(&order.key)).unwrap();
            ssh.before = self.cluster.clock.now();
            ssh
        });
        Ok(Issued { tls: Some(TlsCertificate::parse(pem.as_bytes()).unwrap()), ssh })
    }

    async fn authorities(&self) -> Result<Arc<Authorities>, Failure> {
        let tls_certificates = vec![self.cluster.authority.clone()];
        let authority = Authority { cluster: self.info.name.clone(), tls_certificates, ssh_keys: vec![] };
        let nobody = self.cluster.state().worse.values().any(|worse| matches!(worse, Worse::NoHostAuthority));
        let host = if nobody { Vec::new() } else { vec![authority.clone()] };
        Ok(Arc::new(Authorities { user: vec![authority], host, ..Authorities::default() }))
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<bool, Failure> {
        self.cluster.state().heartbeats.push(heartbeat.clone());
        refuse(self.cluster.state().heartbeat.as_ref())?;
        Ok(true)
    }

    async fn rotations(&self) -> Result<BoxStream<'static, Result<(), Failure>>, Failure> {
        Ok(Box::pin(futures::stream::pending()))
    }
}

/// A destination in memory whose writes can be refused, and which logs into the cluster's log.
pub struct FakeDestination {
    pub files: Mutex<HashMap<String, Vec<u8>>>,
    pub refuse: Mutex<Option<Failure>>,
    /// Is that noticed before anything is written?
    pub unprepared: Mutex<bool>,
    /// The directory was removed: nothing is written until it is prepared again.
    pub gone: Mutex<bool>,
    /// When something was written.
    pub written: Mutex<Vec<Instant>>,
    name: String,
    state: Arc<Mutex<State>>,
}

impl FakeDestination {
    pub fn new(name: &str, cluster: &FakeCluster) -> Arc<Self> {
        let (files, refuse, unprepared, gone, written) = Default::default();
        Arc::new(Self { files, refuse, unprepared, gone, written, name: name.into(), state: cluster.state.clone() })
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.files.lock().unwrap().get(name).cloned().unwrap_or_default()).unwrap()
    }

    pub fn writes(&self) -> usize {
        self.written.lock().unwrap().len()
    }
}

#[async_trait]
impl Destination for FakeDestination {
    fn description(&self) -> String {
        format!("memory: {}", self.name)
    }

    fn directory(&self) -> Option<&Path> {
        None
    }

    async fn prepare(&self) -> Result<(), Failure> {
        refuse(self.refuse.lock().unwrap().as_ref().filter(|_| *self.unprepared.lock().unwrap()))?;
        *self.gone.lock().unwrap() = false;
        Ok(())
    }

    async fn lock(&self) -> Result<Box<dyn Send + Sync>, Failure> {
        Ok(Box::new(()))
    }

    async fn write(&self, files: Vec<OutputFile>) -> Result<(), Failure> {
        refuse(self.refuse.lock().unwrap().as_ref())?;
        let gone = self.gone.lock().unwrap().then(|| Failure::new(FailureKind::Storage, "no such directory"));
        refuse(gone.as_ref())?;
        self.state.lock().unwrap().log.push(format!("write {}", self.name));
        self.written.lock().unwrap().push(Instant::now());
        for file in files {
            self.files.lock().unwrap().insert(file.path.to_string(), file.contents.to_vec());
        }
        Ok(())
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        Ok(self.files.lock().unwrap().get(path).cloned().map(Zeroizing::new))
    }
}

/// An output that writes key and certificate of the application named by its configuration (the bare name, not JSON).
pub struct FakeOutput(pub OutputDescription);

#[async_trait]
impl Output for FakeOutput {
    fn description(&self) -> &OutputDescription {
        &self.0
    }

    async fn plan(&self, config: &str, _directory: Option<&str>) -> Result<OutputPlan, Failure> {
        let files = vec!["tlscert".into(), "key".into()];
        Ok(OutputPlan { target: Target::Application(config.into()), files, formats: vec![] })
    }

    async fn render(&self, config: &str, material: &Material, _key: &PrivateKey) -> Result<Vec<RenderedFile>, Failure> {
        assert_ne!(config, "panics", "this plugin adapter has a defect");
        let file = |path: &str, piece| RenderedFile { path: path.into(), pieces: vec![piece] };
        let certificate = Piece::Bytes(material.tls.as_ref().unwrap().pem.clone().into_bytes());
        let mut files = vec![file("tlscert", certificate), file("key", Piece::PrivateKey(KeyEncoding::TraditionalPem))];
        if config == "misses a file" {
            files.pop();
        }
        Ok(files)
    }
}

pub struct NoFormats;

#[async_trait]
impl Formats for NoFormats {
    async fn format(&self, _: &str) -> Result<Arc<dyn Format>, Failure> {
        Err(Failure::new(FailureKind::InvalidConfig, "no formats here"))
    }
}

pub struct FakeMethod(pub MethodDescription);

#[async_trait]
impl JoinMethod for FakeMethod {
    fn description(&self) -> &MethodDescription {
        &self.0
    }

    async fn prove(&self, _config: &str, _attempt: Attempt) -> Result<JoinProof, Failure> {
        Ok(JoinProof::Secret)
    }
}

/// An SSH certificate for `key` that nobody signed: enough for whoever only reads it (PROTOCOL.certkeys).
fn ssh_certificate(key: &PublicKey) -> String {
    let wire = key.ssh_wire();
    let kind = "ecdsa-sha2-nistp256-cert-v01@openssh.com";
    let string = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(bytes);
    };
    let mut out = Vec::new();
    string(&mut out, kind.as_bytes());
    string(&mut out, b"nonce");
    out.extend_from_slice(&wire[4 + "ecdsa-sha2-nistp256".len()..]);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&1u32.to_be_bytes());
    string(&mut out, b"bot-test");
    let mut principals = Vec::new();
    string(&mut principals, b"-teleport-internal-join");
    string(&mut out, &principals);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[0xff; 8]);
    format!("{kind} {}\n", base64::engine::general_purpose::STANDARD.encode(out))
}
