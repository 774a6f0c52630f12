//! Every release × door × join method: the client proves, the stand-in really verifies.

use std::sync::Arc;
use std::time::Duration;

use crate::{DOORS, Door, Method, join};
use identity::{
    Clock, Cluster, FailureKind, Identity, JoinProof, Joining, KeyAlgorithm, Opening, PrivateKey, SystemClock,
};
use serde_json::json;
use stand_in::evidence::{
    Allow, AwsKey, AzureCloud, AzureRule, IamRule, IdTokenRules, Platforms, TokenIssuer, VirtualMachine,
};
use stand_in::{Options, Release, StandIn, Token};
use zeroize::Zeroizing;

const ID_TOKEN_METHODS: [&str; 10] = [
    "github",
    "gitlab",
    "circleci",
    "kubernetes",
    "gcp",
    "spacelift",
    "terraform_cloud",
    "bitbucket",
    "azure_devops",
    "env0",
];

struct World {
    stand_in: StandIn,
    cloud: Arc<AzureCloud>,
    issuer: Arc<TokenIssuer>,
    key: AwsKey,
}

fn machine() -> VirtualMachine {
    let [subscription, resource_group, name, id] = ["sub", "group", "vm", "vm-id"].map(str::to_owned);
    VirtualMachine { subscription, resource_group, name, id }
}

impl World {
    async fn new(release: Release) -> Self {
        let cloud = Arc::new(AzureCloud::new(vec![machine()]).unwrap());
        let issuer = Arc::new(TokenIssuer::new("https://ci.example.com").unwrap());
        let [id, secret, account] = ["AKID", "secret", "123456789012"].map(str::to_owned);
        let arn = "arn:aws:sts::123456789012:assumed-role/builder/i-07".to_owned();
        let key = AwsKey { id, secret, session_token: None, account, arn };
        let platforms = Platforms { azure: Some(cloud.clone()), issuers: vec![issuer.clone()], aws: vec![key.clone()] };
        let stand_in = StandIn::start(Options { release, platforms, ..Options::default() }).await.unwrap();
        Self { stand_in, cloud, issuer, key }
    }

    fn allow(&self, name: &str, allow: Allow) {
        let (name, roles) = (name.to_owned(), vec!["machine".to_owned()]);
        self.stand_in.control().add_token(Token { name, bot: "robot".to_owned(), roles, allow, ..Token::default() });
    }

    fn azure(&self, with_issuers: bool) -> Method {
        let cloud = self.cloud.clone();
        Method::new(
            "azure",
            Opening::Challenge,
            Box::new(move |challenge| {
                let attested_data = cloud.attested_document(&machine(), &challenge.unwrap()).unwrap().into_bytes();
                let access_token = cloud.access_token(&machine().resource_id()).unwrap();
                let intermediate = if with_issuers { cloud.intermediate().to_vec() } else { vec![] };
                Ok(JoinProof::Azure { attested_data, access_token, intermediate })
            }),
        )
    }

    fn iam(&self) -> Method {
        let key = self.key.clone();
        let prove =
            move |challenge: Option<String>| Ok(JoinProof::Iam(key.sign("eu-west-1", &challenge.unwrap()).unwrap()));
        Method::new("iam", Opening::Challenge, Box::new(prove))
    }

    fn id_token(&self, method: &str, claims: serde_json::Value) -> Method {
        let audience =
            if ["github", "gcp"].contains(&method) { "teleport.cluster.local" } else { self.stand_in.cluster_name() };
        let mut all = json!({ "aud": audience });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let jwt = self.issuer.sign(all).unwrap();
        Method::new(method, Opening::Immediate, Box::new(move |_| Ok(JoinProof::IdToken(format!("{jwt}\n")))))
    }

    fn rules(&self, method: &str) -> Allow {
        let allow = vec![[("repository".to_owned(), "ours".to_owned())].into()];
        let issuer = self.issuer.url().to_owned();
        Allow::IdToken(IdTokenRules { method: method.to_owned(), issuer, audience: None, allow })
    }
}

fn of_subscription(subscription: &str) -> Allow {
    Allow::Azure(vec![AzureRule { subscription: subscription.to_owned(), resource_groups: vec!["GROUP".to_owned()] }])
}

/// Joins, and uses what came back for a connection.
async fn enter(world: &World, door: Door, method: &Method, token: &str) -> bool {
    let client = crate::client(&world.stand_in, door);
    let identity = join(&client, method, token).await.unwrap_or_else(|e| panic!("{door:?} {token}: {e}"));
    let renewable = identity.tls.subject.renewable();
    let session = client.connect(identity).await.unwrap_or_else(|e| panic!("{door:?} {token}: {e}"));
    assert_eq!(session.info().name, world.stand_in.cluster_name());
    renewable
}

#[tokio::test(flavor = "multi_thread")]
async fn every_release_admits_every_method_it_knows_by_every_door() {
    for release in Release::ALL {
        let world = World::new(release).await;
        for door in DOORS {
            world.stand_in.control().add_bot_token("secret", "other", &["machine"]);
            world.stand_in.control().set_generation("other", 0);
            assert!(enter(&world, door, &Method::secret(), "secret").await, "{release:?}: renewable");
            let caller =
                IamRule { account: "123456789012".into(), arn: "arn:aws:sts::*:assumed-role/builder/*".into() };
            world.allow("iam-token", Allow::Iam(vec![caller]));
            assert!(!enter(&world, door, &world.iam(), "iam-token").await, "{release:?}: joins again");
            for method in ["github", "gitlab"] {
                world.allow("jwt-token", world.rules(method));
                let method = world.id_token(method, json!({ "repository": "ours" }));
                assert!(!enter(&world, door, &method, "jwt-token").await, "{release:?}");
                assert_eq!(method.asked.lock().unwrap()[0].token_name, "jwt-token");
            }
            if release > Release::V12 {
                world.allow("azure-token", of_subscription("sub"));
                assert!(!enter(&world, door, &world.azure(true), "azure-token").await, "{release:?}");
            }
        }
        let control = world.stand_in.control();
        assert_eq!(control.calls("/teleport.join.v1.JoinService/Join") > 0, release == Release::Newest);
        assert_eq!(control.calls("RegisterUsingToken") > 0, release == Release::V17);
        assert_eq!(control.calls("credentials") > 0, release < Release::V17, "{release:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platforms_token_is_carried() {
    for release in [Release::V15, Release::Newest] {
        let world = World::new(release).await;
        for method in ID_TOKEN_METHODS {
            world.allow(method, world.rules(method));
            enter(&world, Door::Proxy, &world.id_token(method, json!({ "repository": "ours" })), method).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_without_the_documents_issuers_joins_by_the_legacy_service() {
    let world = World::new(Release::Newest).await;
    world.allow("azure-token", of_subscription("sub"));
    enter(&world, Door::Proxy, &world.azure(false), "azure-token").await;
    assert_eq!(world.stand_in.control().calls("RegisterUsingAzureMethod"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_clusters_own_and_says_what_to_do() {
    for release in [Release::V15, Release::Newest] {
        let world = World::new(release).await;
        for door in DOORS {
            let refused = async |method: &Method, token: &str| {
                let client = crate::client(&world.stand_in, door);
                let failure = join(&client, method, token).await.err().unwrap();
                assert_eq!(failure.message.matches("token expired").count().min(1), usize::from(token == "gone"));
                failure
            };
            world.allow("other-sub", of_subscription("other"));
            let failure = refused(&world.azure(true), "other-sub").await;
            assert_eq!(failure.kind, FailureKind::Denied);
            assert!(
                failure.message.contains("instance did not match any allow rules; the token is known"),
                "{failure}"
            );

            world.allow("jwt", world.rules("gitlab"));
            let failure = refused(&world.id_token("gitlab", json!({ "repository": "theirs" })), "jwt").await;
            assert!(failure.message.contains("id token claims did not match any allow rules"), "{failure}");
            let failure = refused(&world.id_token("gitlab", json!({ "aud": "another" })), "jwt").await;
            assert!(failure.message.contains("audience"), "{failure}");

            let failure = refused(&world.azure(true), "jwt").await;
            assert!(failure.message.contains("set `onboarding.join_method`"), "{failure}");
            let failure = refused(&world.iam(), "gone").await;
            assert!(failure.message.contains("token expired or not found"), "{failure}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_prove_itself_says_why_once() {
    for release in [Release::V15, Release::Newest] {
        let world = World::new(release).await;
        world.allow("azure-token", of_subscription("sub"));
        let failing = |kind| {
            let failure = identity::Failure::new(kind, "no metadata service: is this a virtual machine of Azure?");
            Method::new("azure", Opening::Challenge, Box::new(move |_| Err(failure.clone())))
        };
        let method = failing(FailureKind::Unavailable);
        let client = crate::client(&world.stand_in, Door::Proxy);
        let failure = join(&client, &method, "azure-token").await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.message.ends_with("no metadata service: is this a virtual machine of Azure?"), "{failure}");
        assert_eq!(method.asked.lock().unwrap().len(), 1, "{release:?}");
        let challenge = method.asked.lock().unwrap()[0].challenge.clone().unwrap();
        assert_eq!(challenge.len(), 32, "fits the nonce of the metadata service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_again_as_itself_stays_the_same_instance() {
    for release in Release::ALL {
        let world = World::new(release).await;
        world.allow("azure-token", of_subscription("sub"));
        world.allow("jwt", world.rules("gitlab"));
        let jwt = world.id_token("gitlab", json!({ "repository": "ours" }));
        for (method, token) in [(world.azure(true), "azure-token"), (jwt, "jwt")] {
            if release == Release::V12 && token == "azure-token" {
                continue;
            }
            let client = crate::client(&world.stand_in, Door::Proxy);
            let first = join(&client, &method, token).await.unwrap();
            let session = client.connect(first.clone()).await.unwrap();
            let key = Arc::new(PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap());
            let (ttl, secret) = (Duration::from_secs(600), Zeroizing::new(token.to_owned()));
            let joining = Joining { method: &method, config: "{}", token: secret, key: key.public_key(), ttl };
            let again = session.rejoin(joining).await;
            if release < Release::V17 {
                assert_eq!(again.unwrap_err().kind, FailureKind::Unsupported, "{release:?}");
                continue;
            }
            let again = Identity::new(key, again.unwrap(), SystemClock.now()).unwrap();
            let instance = |identity: &Identity| identity.tls.subject.attribute("2.20").map(str::to_owned);
            assert!(instance(&first).is_some() && instance(&again) == instance(&first), "{release:?} {token}");
            let anew = join(&client, &method, token).await.unwrap();
            assert_ne!(instance(&anew), instance(&first), "{release:?} {token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_12_does_not_know_azure() {
    let world = World::new(Release::V12).await;
    world.allow("azure-token", of_subscription("sub"));
    let client = crate::client(&world.stand_in, Door::Proxy);
    let failure = join(&client, &world.azure(true), "azure-token").await.err().unwrap();
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert!(failure.message.contains("version 12.0.0"), "{failure}");
}
