//! A proxy that hands everything on to an echo, and the certificates to get in.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Address, AddressKind, ClusterConfig, TeleportCluster};
use identity::{Clock, Destination, Failure, FailureKind, OutputFile, SystemClock, Timestamp};
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tunnel::{Credentials, Limits, Listen, Mode, Settings, Target};
use zeroize::Zeroizing;

/// What the proxy does with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Says `hello` and the protocol, then returns what comes.
    Echo,
    /// The same in frames, with keep-alives between them.
    Framed,
    /// Ends the connection at once, without the farewell of TLS.
    Closed,
    /// The same with it, as servers written in Go do.
    Left,
    /// Answers HTTP with a redirect to the login page.
    Login,
}

/// One connection as the proxy saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub protocol: String,
    /// The client certificate's name, empty without one.
    pub user: String,
}

pub struct Proxy {
    authority: Issuer<'static, KeyPair>,
    root: String,
    config: Arc<ServerConfig>,
    address: SocketAddr,
    service: Arc<Mutex<Service>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Proxy {
    pub async fn start() -> Self {
        let mut params = named("lab.example.com");
        params.distinguished_name.push(DnType::OrganizationName, "lab.example.com");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let authority = Issuer::new(params, key);
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = KeyPair::generate().unwrap();
        let shown = named("localhost").signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            .with_single_cert(
                vec![shown.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self {
            authority,
            root: root.pem(),
            config: Arc::new(config),
            address,
            service: Arc::new(Mutex::new(Service::Echo)),
            seen: Arc::default(),
            task: None,
        };
        proxy.serve(listener);
        proxy
    }

    fn serve(&mut self, listener: TcpListener) {
        let (config, service, seen) = (self.config.clone(), self.service.clone(), self.seen.clone());
        self.task = Some(tokio::spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = *service.lock().unwrap();
                let mut config = ServerConfig::clone(&config);
                config.alpn_protocols = [
                    "teleport-postgres",
                    "teleport-mysql",
                    "teleport-mongodb",
                    "teleport-sqlserver",
                    "http/1.1",
                    "h2",
                    "teleport-tcp",
                ]
                .map(|name| if service == Service::Framed { format!("{name}-ping") } else { name.into() }.into_bytes())
                .to_vec();
                // By which clients see that protocol names arrive.
                config.alpn_protocols.push(b"teleport-reversetunnel".to_vec());
                running.spawn(handle(stream, config, service, seen.clone()));
            }
        }));
    }

    pub fn set(&self, service: Service) {
        *self.service.lock().unwrap() = service;
    }

    /// The connections since the last call that were more than a look.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Takes the port and every connection away.
    pub async fn stop(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub async fn restart(&mut self) {
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    /// A certificate for `user` with private attributes `1.3.9999.<oid>`, valid for `life` seconds, and its key.
    pub fn certificate(&self, user: &str, attributes: &[(&[u64], &str)], life: i64) -> [(&'static str, Vec<u8>); 3] {
        let mut params = named(user);
        for (oid, value) in attributes {
            let oid = [&[1, 3, 9999], *oid].concat();
            params.distinguished_name.push(DnType::CustomDnType(oid), *value);
        }
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(2);
        params.not_after = now + time::Duration::seconds(life);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        [
            ("key", key.serialize_pem().into_bytes()),
            ("tlscert", certificate.pem().into_bytes()),
            ("teleport-host-ca.crt", self.root.clone().into_bytes()),
        ]
    }

    /// Settings of a tunnel on a free port.
    pub fn settings(&self, target: Target, mode: Mode, files: &Arc<Files>) -> Settings {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let address = Address { host: "localhost".into(), port: Some(self.address.port()), kind: AddressKind::Proxy };
        Settings {
            listen: Listen::loopback(0),
            target,
            mode,
            credentials: Credentials::new(files.clone(), clock.clone()),
            cluster: Arc::new(TeleportCluster::new(ClusterConfig {
                address,
                ca_pins: vec![],
                authority_pem: None,
                insecure: true,
                clock,
            })),
            limits: Limits::default(),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

async fn handle(stream: TcpStream, config: ServerConfig, service: Service, seen: Arc<Mutex<Vec<Seen>>>) -> Option<()> {
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
    let session = stream.get_ref().1;
    let protocol = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let subject = leaf.map(|leaf| identity::TlsCertificate::from_der(leaf.to_vec()).unwrap().subject);
    let user = subject.map_or_else(String::new, |subject| subject.user);
    let seen_now = Seen { protocol: protocol.clone(), user };
    match service {
        _ if protocol == "teleport-reversetunnel" => {}
        Service::Closed => {}
        Service::Left => stream.shutdown().await.ok()?,
        Service::Login => {
            stream.read_u8().await.ok()?;
            seen.lock().unwrap().push(seen_now);
            stream
                .write_all(
                    b"HTTP/1.1 302 Found\r\nLocation: https://localhost/web/launch/app\r\nContent-Length: 0\r\n\r\n",
                )
                .await
                .ok()?;
            stream.shutdown().await.ok()?;
        }
        Service::Echo | Service::Framed => {
            let framed = service == Service::Framed;
            let mut noted = false;
            let mut buffer = vec![0; 64 * 1024];
            if !protocol.contains("http") && protocol != "h2" && !protocol.contains("postgres") {
                stream.write_all(&frame(b"hello", framed)).await.ok()?;
            }
            loop {
                let n = if framed {
                    read_frame(&mut stream, &mut buffer).await?
                } else {
                    stream.read(&mut buffer).await.ok()?
                };
                if n == 0 && !framed {
                    break;
                }
                if !std::mem::replace(&mut noted, true) {
                    seen.lock().unwrap().push(seen_now.clone());
                }
                stream.write_all(&frame(&buffer[..n], framed)).await.ok()?;
            }
            stream.shutdown().await.ok()?;
        }
    }
    Some(())
}

fn frame(bytes: &[u8], framed: bool) -> Vec<u8> {
    if !framed {
        return bytes.to_vec();
    }
    // A keep-alive before and behind.
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0; 4], length.as_slice(), bytes, &[0; 4]].concat()
}

async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut [u8]) -> Option<usize> {
    let length = usize::try_from(stream.read_u32().await.ok()?).unwrap();
    stream.read_exact(&mut buffer[..length]).await.ok()
}

/// The wall clock, and what a test adds to it.
#[derive(Default)]
pub struct Later(pub AtomicI64);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::Relaxed))
    }
}

/// A destination that the test fills.
#[derive(Default)]
pub struct Files(Mutex<HashMap<String, Vec<u8>>>);

impl Files {
    pub fn put(&self, files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) {
        self.0.lock().unwrap().extend(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
    }
}

#[async_trait]
impl Destination for Files {
    fn description(&self) -> String {
        "directory: /opt/machine-id".into()
    }

    fn directory(&self) -> Option<&Path> {
        None
    }

    async fn prepare(&self) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Storage, "a tunnel only reads"))
    }

    async fn lock(&self) -> Result<Box<dyn Send + Sync>, Failure> {
        Err(Failure::new(FailureKind::Storage, "a tunnel only reads"))
    }

    async fn write(&self, _: Vec<OutputFile>) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Storage, "a tunnel only reads"))
    }

    async fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        Ok(self.0.lock().unwrap().get(path).cloned().map(Zeroizing::new))
    }
}

/// Waits for anything here; far more than it takes.
const LONG: Duration = Duration::from_secs(120);

/// `work`, which must not take long.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it takes too long")
}
