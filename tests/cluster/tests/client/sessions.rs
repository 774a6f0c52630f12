//! Every release × door: what an authenticated client asks for.

use std::sync::Arc;
use std::time::Duration;

use crate::{DOORS, Method, join};
use futures::StreamExt;
use identity::{
    Clock, Cluster, Health, Heartbeat, Identity, KeyAlgorithm, Order, PrivateKey, ServiceHealth, Session, SystemClock,
    Target,
};
use stand_in::{AuthorityKind, Options, Release, RotationPhase, StandIn, Suite};

const TTL: Duration = Duration::from_secs(600);

async fn stand_in(release: Release) -> StandIn {
    let stand_in =
        StandIn::start(Options { release, session_tick: Duration::ZERO, ..Options::default() }).await.unwrap();
    let control = stand_in.control();
    control.add_app("greeter", "greeter.localhost", "http://127.0.0.1:1");
    control.add_database("orders", "postgres", "127.0.0.1:1");
    stand_in
}

async fn enter(stand_in: &StandIn, door: crate::Door, bot: &str) -> (Arc<Identity>, Arc<dyn Session>) {
    stand_in.control().add_bot_token(bot, bot, &["machine"]);
    let client = crate::client(stand_in, door);
    let identity = join(&client, &Method::secret(), bot).await.unwrap();
    (identity.clone(), client.connect(identity).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_release_serves_outputs_authorities_and_renewals() {
    for release in Release::ALL {
        let stand_in = stand_in(release).await;
        for (door, bot) in DOORS.into_iter().zip(["direct", "routed"]) {
            let (_, session) = enter(&stand_in, door, bot).await;
            let authorities = session.authorities().await.unwrap_or_else(|e| panic!("{release:?} {door:?}: {e}"));
            for kind in [&authorities.host, &authorities.user, &authorities.database] {
                assert_eq!(kind[0].cluster, stand_in.cluster_name(), "{release:?}");
                assert!(kind[0].tls_certificates[0].starts_with("-----BEGIN CERTIFICATE"), "{release:?}");
            }
            assert!(authorities.host[0].ssh_keys[0].starts_with("ssh-") && authorities.database[0].ssh_keys.is_empty());
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let targets = [
                (Target::Application("greeter".into()), "1.10", "greeter"),
                (
                    Target::Database { service: "orders".into(), username: "u".into(), database: "d".into() },
                    "2.1",
                    "orders",
                ),
            ];
            for (target, oid, value) in targets {
                let order = Order { target, roles: vec![], ttl: TTL, key: key.public_key().clone() };
                let issued = session.issue(&order).await.unwrap_or_else(|e| panic!("{release:?} {door:?}: {e}"));
                assert_eq!(issued.tls.as_ref().unwrap().subject.attribute(oid), Some(value), "{release:?}");
                if oid == "1.10" {
                    assert!(issued.tls.as_ref().unwrap().subject.attribute("1.4").is_some(), "{release:?}: no session");
                }
            }
            let target = Target::SshHost(vec!["a.example.com".into()]);
            let order = Order { target, roles: vec![], ttl: TTL, key: key.public_key().clone() };
            let issued = session.issue(&order).await.unwrap_or_else(|e| panic!("{release:?} {door:?}: {e}"));
            let certificate = issued.ssh.unwrap();
            assert_eq!(certificate.principals, ["a.example.com"], "{release:?}");
            let life = certificate.before.0 - SystemClock.now().0;
            assert!((590..=600).contains(&life), "{release:?}: {life} s");
            session.renew(key.public_key(), TTL).await.unwrap();
            assert_eq!(stand_in.control().generation(bot), 2, "{release:?}");
        }
        let control = stand_in.control();
        assert_eq!(control.calls("CreateAppSession") > 0, release < Release::V17, "{release:?}");
        assert_eq!(control.calls("GetCertAuthorities") > 0, release > Release::V12, "{release:?}");
        assert_eq!(control.calls("GET /v2/authorities/host"), if release == Release::V12 { 2 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_database_goes_by_its_short_name_while_that_is_its_own() {
    let stand_in = stand_in(Release::V15).await;
    let control = stand_in.control();
    control.add_discovered_database("sales-rds-us-east-1-123", "sales", "mysql", "127.0.0.1:1");
    let (_, session) = enter(&stand_in, crate::Door::Auth, "robot").await;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issue = async |service: &str| {
        let target = Target::Database { service: service.into(), username: "u".into(), database: "d".into() };
        session.issue(&Order { target, roles: vec![], ttl: TTL, key: key.public_key().clone() }).await
    };
    let subject = issue("sales").await.unwrap().tls.unwrap().subject;
    assert_eq!((subject.attribute("2.1"), subject.attribute("2.2")), (Some("sales-rds-us-east-1-123"), Some("mysql")));
    control.add_discovered_database("sales-rds-eu-west-1-123", "sales", "postgres", "127.0.0.1:1");
    let message = issue("sales").await.unwrap_err().message;
    assert!(
        message.ends_with("set `service` to one of `sales-rds-eu-west-1-123`, `sales-rds-us-east-1-123`"),
        "{message}"
    );
    control.add_database("sales", "redis", "127.0.0.1:1");
    let subject = issue("sales").await.unwrap().tls.unwrap().subject;
    assert_eq!(subject.attribute("2.1"), Some("sales"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_long_name_and_leaves() {
    for release in [Release::V12, Release::V15, Release::Newest] {
        let cluster_name = format!("{}.example.com", "long".repeat(12));
        let stand_in = StandIn::start(Options { release, cluster_name, ..Options::default() }).await.unwrap();
        stand_in.control().add_leaf("leaf.example.com").unwrap();
        for (door, bot) in DOORS.into_iter().zip(["direct", "routed"]) {
            let (_, session) = enter(&stand_in, door, bot).await;
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let order = |leaf: Option<&str>| {
                let target = Target::Identity { cluster: leaf.map(str::to_owned), allow_reissue: false };
                Order { target, roles: vec![], ttl: TTL, key: key.public_key().clone() }
            };
            let street = |issued: identity::Issued| {
                String::from_utf8_lossy(&issued.tls.unwrap().der).contains("leaf.example.com")
            };
            assert!(street(session.issue(&order(Some("leaf.example.com"))).await.unwrap()), "{release:?} {door:?}");
            assert!(!street(session.issue(&order(None)).await.unwrap()), "{release:?} {door:?}");
            let failure = session.issue(&order(Some("nowhere"))).await.unwrap_err();
            assert!(failure.message.contains("remote cluster \"nowhere\" is not found"), "{failure}");
            let hosts = &session.authorities().await.unwrap().host;
            let names: Vec<_> = hosts.iter().map(|authority| authority.cluster.as_str()).collect();
            assert_eq!(names, [stand_in.cluster_name(), "leaf.example.com"], "{release:?} {door:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_suite_is_understood() {
    for release in [Release::V15, Release::V17, Release::Newest] {
        for suite in Suite::ALL {
            let stand_in = StandIn::start(Options { release, suite, ..Options::default() }).await.unwrap();
            let (_, session) = enter(&stand_in, crate::Door::Proxy, "robot").await;
            let known =
                if release == Release::V15 { identity::Suite::Legacy } else { identity::Suite::parse(suite.name()) };
            assert_eq!(session.info().suite, known, "{release:?} {suite:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_reach_clusters_that_listen() {
    let unhealthy = |reason: &str| Health::Unhealthy(reason.to_owned());
    let service = |name: &str, health| {
        let (kind, name) = ("application".to_owned(), name.to_owned());
        ServiceHealth { kind, name, health, since: SystemClock.now() }
    };
    let heartbeat = Heartbeat {
        is_startup: true,
        hostname: "machine".to_owned(),
        uptime: Duration::from_secs(7),
        join_method: "token".to_owned(),
        one_shot: false,
        services: vec![service("good", Health::Healthy), service(&"x".repeat(99), unhealthy(&"é".repeat(300)))],
    };
    for release in Release::ALL {
        let stand_in = stand_in(release).await;
        let (_, session) = enter(&stand_in, crate::Door::Proxy, "robot").await;
        assert_eq!(session.heartbeat(&heartbeat).await.unwrap(), release >= Release::V17, "{release:?}");
        let heard = stand_in.control().heartbeats();
        assert_eq!(heard.len(), usize::from(release >= Release::V17));
        for said in heard {
            assert!(said.is_startup && !said.one_shot && said.user == "bot-robot" && said.join_method == "token");
            assert_eq!(said.services[0], ("application".into(), "good".into(), "HEALTHY".into(), String::new()));
            assert_eq!((said.services[1].1.len(), said.services[1].3.len()), (64, 256));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_of_every_authority_are_announced_and_both_keys_trusted_meanwhile() {
    for release in [Release::V15, Release::Newest] {
        let stand_in = stand_in(release).await;
        let control = stand_in.control();
        let (_, session) = enter(&stand_in, crate::Door::Auth, "robot").await;
        for kind in [AuthorityKind::Host, AuthorityKind::User, AuthorityKind::Db] {
            let mut steps = session.rotations().await.unwrap();
            control.rotate(kind, RotationPhase::Init).unwrap();
            control.rotate(kind, RotationPhase::UpdateClients).unwrap();
            steps.next().await.unwrap().unwrap();
            let authorities = session.authorities().await.unwrap();
            let rotated = match kind {
                AuthorityKind::Host => &authorities.host,
                AuthorityKind::User => &authorities.user,
                _ => &authorities.database,
            };
            assert_eq!(rotated[0].tls_certificates.len(), 2, "{release:?} {kind:?}");
            control.rotate(kind, RotationPhase::Rollback).unwrap();
            steps.next().await.unwrap().unwrap();
            control.rotate(kind, RotationPhase::Standby).unwrap();
            steps.next().await.unwrap().unwrap();
        }
        // Still the same connection, and a new one by what it learned.
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        session.renew(key.public_key(), TTL).await.unwrap();
    }
}
