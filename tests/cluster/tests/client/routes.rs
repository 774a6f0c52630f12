//! Ways to a proxy: behind a load balancer that hides protocol names, and through an HTTP proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Method, join};
use cluster::{Address, AddressKind, ClusterConfig, TeleportCluster};
use identity::{Cluster, FailureKind, JoinProof, Opening, SystemClock};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use stand_in::evidence::{Allow, AzureCloud, AzureRule, Platforms, VirtualMachine};
use stand_in::{Options, Release, StandIn, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

/// What an upgraded connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    WebSocket,
    Older,
    Unknown,
}

/// Ends TLS in front of a proxy, without any protocol name. It answers upgrades as the proxy behind it would.
struct Balancer {
    address: SocketAddr,
    upgrades: Arc<AtomicUsize>,
}

impl Balancer {
    async fn start(stand_in: &StandIn, upgrade: Upgrade) -> Self {
        let (proxy, connector) = (stand_in.proxy_addr(), trusting(stand_in));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let upgrades = Arc::new(AtomicUsize::new(0));
        let counted = upgrades.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connector, counted) = (acceptor.clone(), connector.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    // Clients break off as they like.
                    let _ = serve(tls, proxy, &connector, upgrade, &counted).await;
                });
            }
        });
        Self { address, upgrades }
    }
}

async fn serve(
    mut tls: TlsStream<TcpStream>,
    proxy: SocketAddr,
    connector: &TlsConnector,
    upgrade: Upgrade,
    counted: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await?);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    if !text.starts_with("GET /webapi/connectionupgrade ") {
        let tcp = TcpStream::connect(proxy).await?;
        let mut behind = connector.connect("localhost".try_into().unwrap(), tcp).await?;
        behind.write_all(&head).await?;
        copy_bidirectional(&mut tls, &mut behind).await?;
        return Ok(());
    }
    counted.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| {
        let named = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        named.unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(header("X-Teleport-Upgrade"), "alpn-ping");
    let answer = match upgrade {
        Upgrade::Unknown => {
            return tls.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        }
        Upgrade::Older => "Upgrade: alpn-ping\r\nX-Teleport-Upgrade: alpn-ping".to_owned(),
        Upgrade::WebSocket => {
            let whole = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", header("Sec-WebSocket-Key"));
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, whole.as_bytes());
            let accept = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest.as_ref());
            format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: alpn-ping")
        }
    };
    tls.write_all(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{answer}\r\n\r\n").as_bytes())
        .await?;
    let (mut from_client, mut to_client) = split(tls);
    let (mut from_proxy, mut to_proxy) = split(TcpStream::connect(proxy).await?);
    let inwards = async {
        loop {
            let (length, is_data) = match upgrade {
                Upgrade::WebSocket => {
                    let [kind, length] = from_client.read_u16().await?.to_be_bytes();
                    assert!(length & 0x80 != 0, "clients mask");
                    let length = match length & 0x7f {
                        126 => u64::from(from_client.read_u16().await?),
                        127 => from_client.read_u64().await?,
                        short => u64::from(short),
                    };
                    assert_eq!(from_client.read_u32().await?, 0, "and with zeros");
                    (length, kind == 0x82)
                }
                _ => (u64::from(from_client.read_u32().await?), true),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            from_client.read_exact(&mut payload).await?;
            if is_data {
                to_proxy.write_all(&payload).await?;
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; 4096];
        loop {
            let length = from_proxy.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let mut frame = match upgrade {
                Upgrade::WebSocket => [&[0x89, 2, b'h', b'i', 0x82, 126][..], &(length as u16).to_be_bytes()].concat(),
                _ => [&[0; 4][..], &(length as u32).to_be_bytes()].concat(),
            };
            frame.extend(&buffer[..length]);
            to_client.write_all(&frame).await?;
            to_client.flush().await?;
        }
    };
    tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    }
}

/// The balancer's own connections to the proxy.
fn trusting(stand_in: &StandIn) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(stand_in.web_ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config).into()
}

fn behind(balancer: &Balancer) -> TeleportCluster {
    facing(balancer.address.port(), AddressKind::Proxy)
}

/// A client of whatever listens there, which verifies nothing at first.
pub fn facing(port: u16, kind: AddressKind) -> TeleportCluster {
    TeleportCluster::new(ClusterConfig {
        address: Address { host: "localhost".into(), port: Some(port), kind },
        ca_pins: vec![],
        authority_pem: None,
        insecure: true,
        clock: Arc::new(SystemClock),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_load_balancer_connections_are_upgraded() {
    for release in [Release::V15, Release::Newest] {
        for upgrade in [Upgrade::WebSocket, Upgrade::Older] {
            let stand_in = StandIn::start(Options { release, ..Options::default() }).await.unwrap();
            stand_in.control().add_bot_token("once", "robot", &["machine"]);
            let balancer = Balancer::start(&stand_in, upgrade).await;
            let client = behind(&balancer);
            let identity = join(&client, &Method::secret(), "once").await.unwrap();
            let session = client.connect(identity).await.unwrap();
            assert_eq!(session.authorities().await.unwrap().host.len(), 1, "{release:?} {upgrade:?}");
            assert!(balancer.upgrades.load(Ordering::SeqCst) > 0, "{release:?} {upgrade:?}");
            assert_eq!(session.authorities().await.unwrap().user.len(), 1);
        }
    }
}

/// `auth_server` may be either: what answers is found out, and both reasons are told where nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_may_be_either() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    for (port, bot) in [(stand_in.auth_addr().port(), "direct"), (stand_in.proxy_addr().port(), "routed")] {
        stand_in.control().add_bot_token(bot, bot, &["machine"]);
        let client = facing(port, AddressKind::Either);
        let identity = join(&client, &Method::secret(), bot).await.unwrap();
        client.connect(identity.clone()).await.unwrap();
        stand_in.control().stop_listening();
        let failure = client.connect(identity).await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        for tried in ["as auth server: ", "as proxy: "] {
            assert_eq!(failure.message.matches(tried).count(), 1, "{failure}");
        }
        stand_in.control().start_listening().await.unwrap();
    }
}

/// A refusal is final: no second attempt at another route, and no second error behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_one_route_is_not_tried_at_another() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    for port in [stand_in.auth_addr().port(), stand_in.proxy_addr().port()] {
        let failure = join(&facing(port, AddressKind::Either), &Method::secret(), "wrong").await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains("token expired or not found; the token is wrong"), "{failure}");
        assert!(!failure.message.contains(" as "), "{failure}");
    }
    assert_eq!(stand_in.control().calls("register") + stand_in.control().calls("credentials"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_joins_through_an_upgraded_connection() {
    let [subscription, resource_group, name, id] = ["sub", "group", "vm", "vm-id"].map(str::to_owned);
    let machine = VirtualMachine { subscription, resource_group, name, id };
    let cloud = Arc::new(AzureCloud::new(vec![machine.clone()]).unwrap());
    let platforms = Platforms { azure: Some(cloud.clone()), ..Platforms::default() };
    let stand_in = StandIn::start(Options { platforms, ..Options::default() }).await.unwrap();
    let rule = AzureRule { subscription: "sub".to_owned(), resource_groups: vec![] };
    let (name, bot) = ("azure-token".to_owned(), "robot".to_owned());
    stand_in.control().add_token(Token { name, bot, allow: Allow::Azure(vec![rule]), ..Token::default() });
    let prove = move |challenge: Option<String>| {
        Ok(JoinProof::Azure {
            attested_data: cloud.attested_document(&machine, &challenge.unwrap()).unwrap().into_bytes(),
            access_token: cloud.access_token(&machine.resource_id()).unwrap(),
            intermediate: vec![],
        })
    };
    let balancer = Balancer::start(&stand_in, Upgrade::WebSocket).await;
    let method = Method::new("azure", Opening::Challenge, Box::new(prove));
    join(&behind(&balancer), &method, "azure-token").await.unwrap();
    assert_eq!(balancer.upgrades.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_in_front_of_something_else_is_explained() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.control().add_bot_token("once", "robot", &["machine"]);
    let good = Balancer::start(&stand_in, Upgrade::WebSocket).await;
    let identity = join(&behind(&good), &Method::secret(), "once").await.unwrap();
    let bad = Balancer::start(&stand_in, Upgrade::Unknown).await;
    let failure = behind(&bad).connect(identity).await.err().unwrap();
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.message.contains("connection upgrade: the proxy does not know it"), "{failure}");
}
