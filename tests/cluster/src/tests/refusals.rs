//! Refusals in the words of real clusters of versions 12 and 15, each seen with the original agent as the client.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use super::{
    client::{auth_channel, http, join, join_body, web_root},
    recorded::{CLUSTER, call, caller, cluster, cluster_of, connection, message},
};
use crate::{
    Control, Options, Release, StandIn, Token,
    api::{certificates::generate, grpc::Connection, join_service::register, resources::stamp},
    evidence::{Allow, AzureRule, IdTokenRules},
    pki::private_key::PrivateKey,
    wire::{
        proto::{PingRequest, RouteToDatabase, UserCertsRequest, auth_service_client::AuthServiceClient},
        types::RegisterUsingTokenRequest,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// A request for an output's certificate, with two days to live.
fn wanted(user: &str) -> UserCertsRequest {
    let recorded: UserCertsRequest = message(&call("oneshot-direct", 86), "request");
    let expires = Some(stamp(SystemTime::now() + 48 * HOUR));
    UserCertsRequest { username: user.to_owned(), expires, ..recorded }
}

fn refused(bot: &Arc<Connection>, request: &UserCertsRequest) -> (Code, String) {
    let status = generate(bot, request).unwrap_err().status();
    (status.code(), status.message().to_owned())
}

#[test]
fn certificates() {
    let (control, bot) = cluster("robot3");
    control.add_bot_token("other", "other", &["another"]);
    let roles = |list: &[&str]| UserCertsRequest {
        role_requests: list.iter().map(|role| (*role).to_owned()).collect(),
        ..wanted("bot-robot3")
    };
    let words = "user \"bot-robot3\" has requested role impersonation for [\"machine\" \"another\"]";
    assert_eq!(refused(&bot, &roles(&["machine", "another"])), (Code::PermissionDenied, words.to_owned()));
    assert_eq!(refused(&bot, &roles(&["editor"])).0, Code::PermissionDenied, "every cluster has it");
    assert_eq!(refused(&bot, &roles(&["machine", "nope"])), (Code::NotFound, "role nope is not found".to_owned()));
    let words = "at least one role request is required";
    assert_eq!(refused(&bot, &roles(&[])), (Code::InvalidArgument, words.to_owned()));
    assert_eq!(refused(&bot, &wanted("bot-other")), (Code::PermissionDenied, "access denied".to_owned()));

    let route = RouteToDatabase { service_name: "m".to_owned(), protocol: "mongodb".to_owned(), ..Default::default() };
    let mongo = UserCertsRequest { route_to_database: Some(route), ..wanted("bot-robot3") };
    let words = "must provide database user name to generate certificate for database \"m\"";
    assert_eq!(refused(&bot, &mongo), (Code::InvalidArgument, words.to_owned()));
    let kubernetes = UserCertsRequest { kubernetes_cluster: "k".to_owned(), ..wanted("bot-robot3") };
    let words = "kubernetes cluster \"k\" is not registered in this teleport cluster; \
                 you can list registered kubernetes clusters using 'tsh kube ls'";
    assert_eq!(refused(&bot, &kubernetes), (Code::InvalidArgument, words.to_owned()));

    let output = connection(&control, Some(caller(&generate(&bot, &wanted("bot-robot3")).unwrap())));
    let words = "access denied: identity is not allowed to reissue certificates";
    let past = UserCertsRequest { expires: None, ..wanted("bot-other") };
    assert_eq!(refused(&output, &past), (Code::PermissionDenied, words.to_owned()), "the first of all questions");
}

/// The role of a bot ends its own certificates after twelve hours; outputs have the cluster's longest life.
#[test]
fn lives_end_with_the_roles() {
    for release in [Release::V12, Release::V15] {
        let (control, bot) = cluster_of(release, CLUSTER, "robot3");
        let hours = |control: &Control, certs: &crate::wire::proto::Certs| {
            let end = connection(control, Some(caller(certs))).caller().unwrap().not_after;
            (end.duration_since(SystemTime::now()).unwrap() + Duration::from_secs(60)).as_secs() / 3600
        };
        let renewal = UserCertsRequest { role_requests: Vec::new(), use_role_requests: false, ..wanted("bot-robot3") };
        assert_eq!(hours(&control, &generate(&bot, &renewal).unwrap()), 12, "{release:?}");
        assert_eq!(hours(&control, &generate(&bot, &wanted("bot-robot3")).unwrap()), 24, "{release:?}");
        control.add_bot_token("long", "long", &["machine"]);
        let line = PrivateKey::p256().unwrap().public().to_authorized_line().into_bytes();
        let request = RegisterUsingTokenRequest {
            token: "long".to_owned(),
            role: "Bot".to_owned(),
            public_ssh_key: line,
            expires: Some(stamp(SystemTime::now() + 48 * HOUR)),
            ..RegisterUsingTokenRequest::default()
        };
        assert_eq!(hours(&control, &register(&connection(&control, None), &request).unwrap()), 12, "{release:?}");
    }
}

/// What a bot hears that was locked or removed: nothing of why.
#[tokio::test]
async fn bots_that_are_not_wanted_any_more() {
    for (release, denied) in [(Release::V12, "[10] access denied"), (Release::V15, "access denied")] {
        let stand_in = StandIn::start(Options { release, ..Options::default() }).await.unwrap();
        let control = stand_in.control();
        control.add_bot_token("once", "robot", &["machine"]);
        let bot = join(&stand_in, "once").await;
        let mut client = AuthServiceClient::new(auth_channel(&stand_in, Some(&bot)).await);
        control.lock_user("bot-robot", "stolen");
        let status = client.ping(PingRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, denied));
        control.unlock_user("bot-robot");
        client.ping(PingRequest::default()).await.unwrap();
        control.remove_bot("robot");
        let status = client.ping(PingRequest::default()).await.unwrap_err();
        let words = format!("{denied}\n\tuser \"bot-robot\" not found");
        assert_eq!((status.code(), status.message()), (Code::NotFound, words.as_str()));
    }
}

/// A certificate that was used twice locks its bot.
#[test]
fn a_generation_mismatch_locks() {
    let (control, bot) = cluster("genm");
    control.set_generation("genm", 7);
    let renewal = UserCertsRequest { role_requests: Vec::new(), use_role_requests: false, ..wanted("bot-genm") };
    let words = "renewable cert generation mismatch: stored=7, presented=1";
    assert_eq!(refused(&bot, &renewal), (Code::PermissionDenied, words.to_owned()));
    let lock = control.0.faults.lock_on("bot-genm").unwrap();
    assert!(lock.starts_with("The bot user \"bot-genm\" has been locked due to a certificate generation mismatch"));
}

/// Status and message of a join at the proxy.
async fn joined(stand_in: &StandIn, token: &str, change: impl Fn(&mut Value)) -> (StatusCode, String) {
    let port = stand_in.proxy_addr().port();
    let mut body = join_body(token).1;
    change(&mut body);
    let url = format!("https://localhost:{port}/v1/webapi/host/credentials");
    let answer = http(&web_root(stand_in), "localhost", port).post(url).json(&body).send().await.unwrap();
    let (code, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
    (code, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn joins() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let control = stand_in.control();
    let with = |name: &str, allow| Token { name: name.to_owned(), bot: name.to_owned(), allow, ..Token::default() };
    control.add_token(with("vm", Allow::Azure(vec![AzureRule::default()])));
    for method in ["github", "gitlab", "circleci", "gcp", "kubernetes", "spacelift"] {
        let rules = IdTokenRules { method: method.to_owned(), ..IdTokenRules::default() };
        control.add_token(with(method, Allow::IdToken(rules)));
    }
    control.add_bot_token("locked", "locked", &["machine"]);
    control.lock_user("bot-locked", "see ticket 7");
    let wrong_endpoint = "this token is only valid for the azure join method but the node has connected to the wrong \
                          endpoint, make sure your node is configured to use the azure join method";
    for (token, code, words) in [
        ("vm", StatusCode::FORBIDDEN, wrong_endpoint),
        ("github", StatusCode::BAD_REQUEST, "IDToken not provided for Github join request"),
        ("gitlab", StatusCode::BAD_REQUEST, "IDToken not provided for gitlab join request"),
        ("circleci", StatusCode::BAD_REQUEST, "IDToken not provided for \"circleci\" join request"),
        ("gcp", StatusCode::BAD_REQUEST, "IDToken not provided for GCP join request"),
        ("kubernetes", StatusCode::BAD_REQUEST, "IDToken not provided for Kubernetes join request"),
        ("spacelift", StatusCode::BAD_REQUEST, "id_token not provided for spacelift join request"),
        ("locked", StatusCode::FORBIDDEN, "lock targeting User:\"bot-locked\" is in force: see ticket 7"),
    ] {
        assert_eq!(joined(&stand_in, token, |_| {}).await, (code, words.to_owned()), "{token}");
    }
    control.unlock_user("bot-locked");
    let (code, words) = joined(&stand_in, "locked", |_| {}).await;
    assert!(code == StatusCode::BAD_REQUEST && words.contains("has already been issued a renewable"), "{words}");
    let node = |body: &mut Value| body["role"] = json!("Node");
    let missing = (StatusCode::BAD_REQUEST, "missing parameter HostID".to_owned());
    assert_eq!(joined(&stand_in, "vm", node).await, missing);
    let host = |body: &mut Value| (body["role"], body["hostID"]) = (json!("Node"), json!("h"));
    assert!(joined(&stand_in, "locked", host).await.1.ends_with("the token does not allow \"Node\" role"));
}

/// Status, place and type of an answer.
async fn asked(
    stand_in: &StandIn,
    host: &str,
    request: impl Fn(reqwest::Client, String) -> reqwest::RequestBuilder,
) -> [String; 3] {
    let port = stand_in.proxy_addr().port();
    let client = http(&web_root(stand_in), host, port);
    let answer = request(client, format!("https://{host}:{port}")).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    [answer.status().as_u16().to_string(), header("location"), header("content-type")]
}

#[tokio::test]
async fn the_web_away_from_its_services() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let own = format!("https://localhost:{}", stand_in.proxy_addr().port());
    let html = "text/html; charset=utf-8";
    for (host, path, expected) in [
        ("localhost", "/", ["302", "/web", html]),
        ("localhost", "/web/login", ["200", "", html]),
        ("localhost", "/nowhere", ["404", "", "text/plain; charset=utf-8"]),
        ("localhost", "/webapi/nowhere", ["404", "", "text/plain; charset=utf-8"]),
        ("localhost", "/v1/webapi/ping/local", ["200", "", "application/json"]),
        ("localhost", "/webapi/ping/nowhere", ["400", "", "application/json"]),
        ("app.localhost", "/a/b", ["302", &format!("{own}/web/launch/app.localhost?path=%2Fa%2Fb"), html]),
    ] {
        assert_eq!(asked(&stand_in, host, |client, base| client.get(base + path)).await, expected, "{host}{path}");
    }
    // What a gRPC client meets that is no agent's: an answer without a type.
    let call = asked(&stand_in, "app.localhost", |client, base| client.post(base + "/proto.AuthService/Ping")).await;
    assert_eq!(call, ["302", &format!("{own}/web/launch/app.localhost?path=%2Fproto.AuthService%2FPing"), ""]);
}
