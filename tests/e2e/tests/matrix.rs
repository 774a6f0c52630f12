//! The table: each version by each route with each join method, and each suite by each route. The built program writes files that verify
//! and open the application.

mod harness;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::{StreamExt, stream};
use harness::{APP, World, text};
use identity::{Clock, KeyAlgorithm, PrivateKey, SystemClock, TlsCertificate, verify_chain};
use stand_in::evidence::{
    Allow, AwsKey, AzureCloud, AzureRule, IamRule, IdTokenRules, MetadataService, Platforms, TokenIssuer,
    VirtualMachine,
};
use stand_in::{Options, Release, Suite, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Runs of the program at a time: each spends most of its time waiting.
const AT_ONCE: usize = 4;
/// This machine itself is never asked for at an HTTP proxy: a name of the cluster's proxy that is somebody else's, as far as the agent can see.
const ELSEWHERE: &str = "teleport.localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Auth,
    /// The proxy, told what is wanted by protocol names.
    Alpn,
    /// The proxy behind a load balancer that ends TLS: the form of upgrade that the release knows.
    Upgrade,
    /// The proxy, by an HTTP proxy in front of everything.
    HttpProxy,
}

const ROUTES: [Route; 4] = [Route::Auth, Route::Alpn, Route::Upgrade, Route::HttpProxy];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Token,
    Azure,
    Gitlab,
    Iam,
}

const METHODS: [Method; 4] = [Method::Token, Method::Azure, Method::Gitlab, Method::Iam];

/// One cluster, with every way in.
struct Site {
    world: World,
    metadata: MetadataService,
    jwt: String,
    /// `host:port` of an HTTP proxy that leads to the cluster's proxy, whatever the name it is asked for.
    http_proxy: String,
}

impl Site {
    async fn new(release: Release, suite: Suite, strip_alpn: bool) -> Self {
        let [subscription, resource_group, name, id] = ["sub", "group", "vm", "vm-id"].map(str::to_owned);
        let machine = VirtualMachine { subscription, resource_group, name, id };
        let cloud = Arc::new(AzureCloud::new(vec![machine.clone()]).unwrap());
        let issuer = Arc::new(TokenIssuer::new("https://ci.example.com").unwrap());
        let jwt = issuer.sign(serde_json::json!({ "aud": "stand-in.example.com", "sub": "job" })).unwrap();
        let [id, secret, account] = ["AKID", "secret", "123456789012"].map(str::to_owned);
        let key = AwsKey { id, secret, session_token: None, account, arn: "arn:aws:iam::1:role/x".into() };
        let platforms = Platforms { azure: Some(cloud.clone()), issuers: vec![issuer], aws: vec![key] };
        let session_tick = std::time::Duration::from_millis(50);
        let proxy_names = vec![ELSEWHERE.to_owned()];
        let options =
            Options { release, suite, strip_alpn, platforms, session_tick, proxy_names, ..Options::default() };
        let world = World::with(options).await;
        let aws = world.path("home/.aws");
        std::fs::create_dir_all(&aws).unwrap();
        std::fs::write(aws.join("credentials"), "[ci]\naws_access_key_id = AKID\naws_secret_access_key = secret\n")
            .unwrap();
        std::fs::write(aws.join("config"), "[profile ci]\nregion = eu-west-1\n").unwrap();
        let metadata = MetadataService::start(cloud, machine).await.unwrap();
        let http_proxy = http_proxy(world.cluster.proxy_addr().port()).await;
        Self { world, metadata, jwt, http_proxy }
    }

    /// One pass of the program, and a look at what it wrote.
    async fn try_out(&self, release: Release, suite: Suite, route: Route, method: Method) {
        let case = format!("{release:?} {suite:?} {route:?} {method:?}");
        let name = case.replace(' ', "-");
        let (join_method, allow, more) = match method {
            Method::Token => ("token", Allow::Secret, String::new()),
            Method::Azure => {
                let rule = AzureRule { subscription: "sub".into(), resource_groups: vec!["group".into()] };
                let url = self.metadata.url();
                ("azure", Allow::Azure(vec![rule]), format!("  azure: {{metadata_url: {url}}}\n"))
            }
            Method::Gitlab => {
                let allow = vec![BTreeMap::from([("sub".to_owned(), "job".to_owned())])];
                let issuer = "https://ci.example.com".to_owned();
                let rules = IdTokenRules { method: "gitlab".into(), issuer, audience: None, allow };
                ("gitlab", Allow::IdToken(rules), String::new())
            }
            Method::Iam => {
                let rule = IamRule { account: "123456789012".into(), arn: String::new() };
                ("iam", Allow::Iam(vec![rule]), String::new())
            }
        };
        let (bot, roles) = (name.to_lowercase(), vec!["machine".to_owned()]);
        let uses_once = method == Method::Token;
        self.world.control.add_token(Token { name: name.clone(), bot, roles, allow, uses_once, ..Token::default() });
        let port = self.world.cluster.proxy_addr().port();
        let (server, pin) = match route {
            Route::Auth => (self.world.auth(), self.world.pin()),
            Route::Alpn | Route::Upgrade => (self.world.proxy(), String::new()),
            Route::HttpProxy => (format!("proxy_server: {ELSEWHERE}:{port}"), String::new()),
        };
        let folder = self.world.path(&name);
        std::fs::create_dir(&folder).unwrap();
        let (out, file) = (folder.join("out"), folder.join("tbot.yaml"));
        let config = format!(
            "version: v2\n{server}\nonboarding:\n  join_method: {join_method}\n  token: {name}\n  {pin}\n{more}\
             storage: {{type: directory, path: {}}}\noutputs:\n- {{type: application, app_name: {APP}, destination: {{type: directory, path: {}}}}}\n",
            folder.join("store").display(),
            out.display(),
        );
        std::fs::write(&file, config).unwrap();
        let mut command = self.world.run(&["start", "--oneshot", "-c", file.to_str().unwrap()]);
        command.env("TBOT_GITLAB_JWT", &self.jwt).env("HOME", self.world.path("home")).env("AWS_PROFILE", "ci");
        if route == Route::HttpProxy {
            command.env("HTTPS_PROXY", format!("http://{}", self.http_proxy));
        }
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(ran.status.code(), Some(0), "{case}: {}", text(&ran));

        let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
        let certificate = TlsCertificate::parse(read("out/tlscert").as_bytes()).unwrap();
        verify_chain(&certificate, &[read("out/teleport-user-ca.crt")], SystemClock.now()).unwrap();
        let key = PrivateKey::from_pem(read("out/key").as_bytes()).unwrap();
        assert!(certificate.matches(key.public_key()), "{case}");
        let legacy = release < Release::V17 || suite == Suite::Legacy;
        let algorithm = if legacy { KeyAlgorithm::Rsa2048 } else { KeyAlgorithm::EcdsaP256 };
        assert_eq!(key.public_key().algorithm(), algorithm, "{case}");
        let stored = TlsCertificate::parse(read("store/tlscert").as_bytes()).unwrap();
        assert_eq!(stored.subject.renewable(), method == Method::Token, "{case}");
        // What ends TLS in front of the proxy ends client certificates too: there an application takes a local port.
        if route != Route::Upgrade {
            self.world.app_answers(&format!("{name}/out")).await;
        }
    }
}

/// An HTTP proxy that knows `CONNECT` alone.
async fn http_proxy(to: u16) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await?);
                }
                assert!(head.starts_with(format!("CONNECT {ELSEWHERE}:{to} ").as_bytes()));
                let mut cluster = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                copy_bidirectional(&mut client, &mut cluster).await
            });
        }
    });
    address
}

/// Each method by each route, and each suite by each route.
fn cases(release: Release, suite: Suite) -> Vec<(Route, Method)> {
    let plain = suite == Suite::Balanced;
    let sensible = |(_, method): &(Route, Method)| match method {
        Method::Token => true,
        // Joining with it came with 13 or later.
        Method::Azure => plain && release > Release::V12,
        Method::Gitlab | Method::Iam => plain,
    };
    ROUTES.into_iter().flat_map(|route| METHODS.map(|method| (route, method))).filter(sensible).collect()
}

async fn table(release: Release) {
    let suites = if release < Release::V17 { vec![Suite::Balanced] } else { Suite::ALL.to_vec() };
    for suite in suites {
        let [open, balanced] = [Site::new(release, suite, false).await, Site::new(release, suite, true).await];
        let tries = stream::iter(cases(release, suite)).map(|(route, method)| {
            let site = if route == Route::Upgrade { &balanced } else { &open };
            site.try_out(release, suite, route, method)
        });
        tries.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_12() {
    table(Release::V12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_15() {
    table(Release::V15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_17() {
    table(Release::V17).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest() {
    table(Release::Newest).await;
}
