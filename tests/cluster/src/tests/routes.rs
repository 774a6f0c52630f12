//! The ports from outside: both joins, route A, protocols, and the application.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tonic::Code;

use super::{
    client::{Identity, auth_channel, channel, connect, host_root, http, join, join_body, web_root},
    recorded,
};
use crate::{
    Greeter, Options, Release, StandIn,
    api::resources::stamp,
    pki::private_key::PrivateKey,
    state::hex,
    wire::{
        proto::{
            CreateAppSessionRequest, GetRoleRequest, IsMfaRequiredRequest, PingRequest, RouteToApp, UserCertsRequest,
            auth_service_client::AuthServiceClient, join_service_client as legacy,
        },
        teleport::{
            clusterconfig::v1::{GetAuthPreferenceRequest, cluster_config_service_client::ClusterConfigServiceClient},
            join::v1::{
                BotParams, ClientInit, ClientParams, JoinRequest, PublicKeys, TokenInit, client_params, join_request,
                join_response, join_service_client as newest, result,
            },
            presence::v1::{ListRemoteClustersRequest, presence_service_client::PresenceServiceClient},
            transport::v1::{
                GetClusterDetailsRequest, ProxySshRequest, TargetHost, transport_service_client::TransportServiceClient,
            },
        },
        types::RegisterUsingTokenRequest,
    },
};

async fn stand_in(release: Release) -> StandIn {
    let tick = Duration::from_millis(200);
    let stand_in = StandIn::start(Options { release, session_tick: tick, ..Options::default() }).await.unwrap();
    stand_in.control().add_bot_token("once", "robot", &["machine"]);
    stand_in
}

/// A certificate with roles `machine` and maybe a route, over a new key.
async fn issue(stand_in: &StandIn, bot: &Identity, route_to_app: Option<RouteToApp>) -> Identity {
    let key = PrivateKey::p256().unwrap();
    let line = key.public().to_authorized_line().into_bytes();
    let spki = der::Encode::to_der(&key.public().to_spki().unwrap()).unwrap();
    let mut request = UserCertsRequest {
        username: "bot-robot".to_owned(),
        expires: Some(stamp(SystemTime::now() + Duration::from_secs(600))),
        role_requests: vec!["machine".to_owned()],
        use_role_requests: true,
        route_to_app,
        ..UserCertsRequest::default()
    };
    match stand_in.state.options.release.is_modern() {
        false => request.public_key = line,
        true => {
            request.ssh_public_key = line;
            request.tls_public_key = crate::pki::private_key::pem("PUBLIC KEY", &spki).into_bytes();
        }
    }
    let mut client = AuthServiceClient::new(auth_channel(stand_in, Some(bot)).await);
    let certs = client.generate_user_certs(request).await.unwrap().into_inner();
    Identity { certificate: recorded::der(&certs.tls), key: key.to_pkcs8().unwrap() }
}

#[tokio::test]
async fn http_joins_work_on_both_ports_and_use_the_token_up() {
    let stand_in = stand_in(Release::V15).await;
    let bot = join(&stand_in, "once").await;
    assert!(!stand_in.control().has_token("once"));
    let mut client = AuthServiceClient::new(auth_channel(&stand_in, Some(&bot)).await);
    let role = client.get_role(GetRoleRequest { name: "bot-robot".to_owned() }).await.unwrap().into_inner();
    assert_eq!(role.spec.unwrap().allow.unwrap().impersonate.unwrap().roles, ["machine"]);

    stand_in.control().add_bot_token("other", "other", &[]);
    let (name, port) = ("teleport.cluster.local", stand_in.auth_addr().port());
    let auth = http(&host_root(&stand_in), name, port);
    let url = format!("https://{name}:{port}/v2/tokens/register");
    let joined = auth.post(&url).json(&join_body("other").1).send().await.unwrap();
    assert_eq!(joined.status(), 200);
    assert_eq!(joined.headers()["x-frame-options"], "SAMEORIGIN");
    let wrong = recorded::json("join-http/auth-wrong.json");
    let refused = auth.post(&url).json(&wrong["request"]).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 403);
    assert_eq!(refused.text().await.unwrap(), wrong["response"].as_str().unwrap());
    let untyped = auth.post(&url).body("{}").send().await.unwrap();
    assert_eq!(untyped.status(), 400);
    assert!(untyped.text().await.unwrap().contains("invalid request"));
}

#[tokio::test]
async fn a_second_token_join_of_a_bot_is_refused_by_15() {
    let stand_in = stand_in(Release::V15).await;
    join(&stand_in, "once").await;
    stand_in.control().add_bot_token("again", "robot", &[]);
    let port = stand_in.proxy_addr().port();
    let url = format!("https://localhost:{port}/webapi/host/credentials");
    let proxy = http(&web_root(&stand_in), "localhost", port);
    let refused = proxy.post(url).json(&join_body("again").1).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("already been issued a renewable certificate"));
}

#[tokio::test]
async fn discovery_has_the_recorded_keys() {
    fn keys(value: &Value, prefix: &str) -> Vec<String> {
        value.as_object().map_or_else(
            || vec![prefix.to_owned()],
            |object| object.iter().flat_map(|(key, value)| keys(value, &format!("{prefix}/{key}"))).collect(),
        )
    }
    for (release, file) in
        [(Release::V15, "http/find.json"), (Release::V15, "http/ping.json"), (Release::V12, "../v12/http/find.json")]
    {
        let stand_in = stand_in(release).await;
        let port = stand_in.proxy_addr().port();
        let proxy = http(&web_root(&stand_in), "localhost", port);
        let name = if file.ends_with("ping.json") { "ping" } else { "find" };
        let url = format!("https://localhost:{port}/v1/webapi/{name}");
        let answer: Value = proxy.get(url).send().await.unwrap().json().await.unwrap();
        let (ours, recorded) = (keys(&answer, ""), keys(&recorded::json(file), ""));
        assert_eq!(ours, recorded, "{file}");
    }
}

#[tokio::test]
async fn the_proxy_routes_by_the_offered_protocols() {
    let stand_in = stand_in(Release::V15).await;
    let bot = join(&stand_in, "once").await;
    let (port, host, web) = (stand_in.proxy_addr().port(), host_root(&stand_in), web_root(&stand_in));
    let route = format!("teleport-auth@{}.teleport.cluster.local", hex(stand_in.cluster_name().as_bytes()));
    let name = "teleport.cluster.local";
    let relayed = connect(port, &host, name, &[&route, "h2"], Some(&bot)).await.unwrap();
    assert_eq!(relayed.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = AuthServiceClient::new(channel(relayed).await);
    let ping = client.ping(PingRequest::default()).await.unwrap().into_inner();
    assert_eq!(ping.proxy_public_addr, format!("localhost:{port}"));
    client.get_role(GetRoleRequest { name: "bot-robot".to_owned() }).await.unwrap();

    assert!(connect(port, &host, name, &["teleport-auth@", "h2"], Some(&bot)).await.is_err());
    assert!(connect(port, &web, name, &["nonsense"], None).await.is_err());
    // The original's server answers a client without common protocols as if it had offered none; rustls clients accept it.
    let bare = connect(port, &web, "localhost", &["nonsense"], None).await.unwrap();
    assert_eq!(bare.get_ref().1.alpn_protocol(), None);
    let auth_port = stand_in.auth_addr().port();
    assert!(connect(auth_port, &host, name, &["nonsense"], None).await.is_err());
    let json = connect(auth_port, &host, name, &["http/1.1"], None).await.unwrap();
    assert_eq!(json.get_ref().1.alpn_protocol(), None);

    let grpc = connect(port, &web, "localhost", &["teleport-proxy-grpc", "h2"], None).await.unwrap();
    assert_eq!(grpc.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut joining = legacy::JoinServiceClient::new(channel(grpc).await);
    assert_eq!(
        joining.register_using_token(RegisterUsingTokenRequest::default()).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let plain = connect(port, &web, "localhost", &["h2"], None).await.unwrap();
    let status = AuthServiceClient::new(channel(plain).await).ping(PingRequest::default()).await.unwrap_err();
    assert!(status.message().contains("302"), "{status}");
}

#[tokio::test]
async fn anonymous_clients_may_do_next_to_nothing() {
    let stand_in = stand_in(Release::V15).await;
    let mut client = AuthServiceClient::new(auth_channel(&stand_in, None).await);
    client.ping(PingRequest::default()).await.unwrap();
    client.get_cluster_ca_cert(()).await.unwrap();
    let status = client.get_role(GetRoleRequest { name: "bot-robot".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_application_opens_when_its_session_is_visible() {
    for release in [Release::V15, Release::Newest] {
        let stand_in = stand_in(release).await;
        let app = Greeter::start("hello").await.unwrap();
        stand_in.control().add_app("greeter", "greeter.localhost", &app.uri());
        let bot = join(&stand_in, "once").await;
        let mut route = RouteToApp {
            name: "greeter".to_owned(),
            public_addr: "greeter.localhost".to_owned(),
            cluster_name: stand_in.cluster_name().to_owned(),
            ..RouteToApp::default()
        };
        if release == Release::V15 {
            let output = issue(&stand_in, &bot, None).await;
            let mut client = AuthServiceClient::new(auth_channel(&stand_in, Some(&output)).await);
            let request = CreateAppSessionRequest {
                username: "bot-robot".to_owned(),
                public_addr: route.public_addr.clone(),
                ..CreateAppSessionRequest::default()
            };
            let made = client.create_app_session(request).await.unwrap().into_inner().session.unwrap();
            route.session_id = made.metadata.unwrap().name;
        }
        let identity = issue(&stand_in, &bot, Some(route)).await;
        let caller = crate::pki::caller::Caller::from_certificate(&identity.certificate).unwrap();
        assert_eq!(caller.app_session.as_deref().map(str::len), Some(64));
        let mut answers = vec![get(&stand_in, &identity).await];
        for _ in 0..20 {
            if answers.last().is_some_and(|(code, _)| *code == 200) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            answers.push(get(&stand_in, &identity).await);
        }
        assert!(answers[..answers.len() - 1].iter().all(|(code, _)| *code == 403), "{answers:?}");
        assert_eq!(answers.last().unwrap(), &(200, "hello".to_owned()), "{release:?}");
    }
}

/// What `tsh` needs besides, which the original runs for its local proxies and for SSH.
#[tokio::test]
async fn tsh_hears_of_the_host_before_its_first_bytes() {
    let stand_in = stand_in(Release::V15).await;
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    stand_in.control().add_host("node", &host.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut connection, _) = host.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut connection, b"SSH-2.0-x\r\n").await.unwrap();
    });
    let bot = join(&stand_in, "once").await;
    let mut auth = AuthServiceClient::new(auth_channel(&stand_in, Some(&bot)).await);
    let mfa = auth.is_mfa_required(IsMfaRequiredRequest {}).await.unwrap().into_inner();
    assert_eq!((mfa.required, mfa.mfa_required), (false, 2));

    let (port, root) = (stand_in.proxy_addr().port(), host_root(&stand_in));
    let protocols = ["teleport-proxy-ssh-grpc", "h2"];
    let tls = connect(port, &root, "teleport.cluster.local", &protocols, Some(&bot)).await.unwrap();
    let mut proxy = TransportServiceClient::new(channel(tls).await);
    let details = proxy.get_cluster_details(GetClusterDetailsRequest {}).await.unwrap().into_inner();
    assert!(!details.details.unwrap().fips_enabled);
    let target = |host_port: &str| {
        let target = TargetHost { host_port: host_port.to_owned(), cluster: stand_in.cluster_name().to_owned() };
        tokio_stream::iter([ProxySshRequest { dial_target: Some(target), ssh: None }])
    };
    let unknown = proxy.proxy_ssh(target("nowhere:0")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut answers = proxy.proxy_ssh(target("node:0")).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(first.details.is_some() && first.ssh.is_none(), "bytes in it would be lost: {first:?}");
    let second = answers.message().await.unwrap().unwrap();
    assert_eq!(second.ssh.unwrap().payload, b"SSH-2.0-x\r\n");
}

/// Agents of version 17 and later ask two more services than ours does.
#[tokio::test]
async fn the_suite_and_leaf_clusters_are_told_to_the_newest_agents() {
    let stand_in = stand_in(Release::Newest).await;
    stand_in.control().add_leaf("leaf.example.com").unwrap();
    let bot = join_by_stream(&stand_in).await;
    let channel = auth_channel(&stand_in, Some(&bot)).await;
    let mut config = ClusterConfigServiceClient::new(channel.clone());
    let preference = config.get_auth_preference(GetAuthPreferenceRequest {}).await.unwrap().into_inner();
    assert_eq!(preference.spec.unwrap().signature_algorithm_suite, 2);
    let mut presence = PresenceServiceClient::new(channel);
    let request = ListRemoteClustersRequest::default();
    let leaves = presence.list_remote_clusters(request).await.unwrap().into_inner().remote_clusters;
    let names: Vec<_> = leaves.into_iter().map(|leaf| leaf.metadata.unwrap().name).collect();
    assert_eq!(names, ["leaf.example.com"]);
    let mut anonymous = ClusterConfigServiceClient::new(auth_channel(&stand_in, None).await);
    let refused = anonymous.get_auth_preference(GetAuthPreferenceRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// GET / with a client certificate.
async fn get(stand_in: &StandIn, identity: &Identity) -> (u16, String) {
    use http_body_util::BodyExt;
    let port = stand_in.proxy_addr().port();
    let tls = connect(port, &web_root(stand_in), "localhost", &["http/1.1"], Some(identity)).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tls);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/").header("host", "greeter.localhost").body(String::new()).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&text).into_owned())
}

/// Joins by the stream of the newest release.
async fn join_by_stream(stand_in: &StandIn) -> Identity {
    let key = PrivateKey::p256().unwrap();
    let spki = der::Encode::to_der(&key.public().to_spki().unwrap()).unwrap();
    let keys = PublicKeys { public_tls_key: spki, public_ssh_key: key.public().to_ssh_wire() };
    let bot = BotParams { public_keys: Some(keys), expires: None };
    let params = ClientParams { payload: Some(client_params::Payload::BotParams(bot)) };
    let init = ClientInit { token_name: "once".to_owned(), system_role: "Bot".to_owned(), ..ClientInit::default() };
    let token = TokenInit { client_params: Some(params), secret: String::new() };
    let requests = [join_request::Payload::ClientInit(init), join_request::Payload::TokenInit(token)]
        .map(|payload| JoinRequest { payload: Some(payload) });
    let mut client = newest::JoinServiceClient::new(auth_channel(stand_in, None).await);
    let mut answers = client.join(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let Some(join_response::Payload::Init(init)) = answers.message().await.unwrap().unwrap().payload else {
        panic!("no init")
    };
    assert_eq!(init.signature_algorithm_suite, "balanced-v1");
    let Some(join_response::Payload::Result(result)) = answers.message().await.unwrap().unwrap().payload else {
        panic!("no result")
    };
    let Some(result::Payload::BotResult(result)) = result.payload else { panic!("no certificates") };
    Identity { certificate: result.certificates.unwrap().tls_cert, key: key.to_pkcs8().unwrap() }
}

#[tokio::test]
async fn the_newest_release_joins_by_stream_and_reads_two_keys() {
    let stand_in = stand_in(Release::Newest).await;
    let identity = join_by_stream(&stand_in).await;
    let caller = crate::pki::caller::Caller::from_certificate(&identity.certificate).unwrap();
    assert!(caller.renewable && caller.bot_instance.is_some());
    issue(&stand_in, &identity, None).await;
    let mut client = AuthServiceClient::new(auth_channel(&stand_in, Some(&identity)).await);
    let old = UserCertsRequest {
        username: "bot-robot".to_owned(),
        expires: Some(stamp(SystemTime::now() + Duration::from_secs(600))),
        public_key: PrivateKey::p256().unwrap().public().to_authorized_line().into_bytes(),
        ..UserCertsRequest::default()
    };
    assert_eq!(client.generate_user_certs(old).await.unwrap_err().code(), Code::InvalidArgument);
}
