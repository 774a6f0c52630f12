//! The guide for virtual machines of Azure, followed against a cluster that verifies, and platforms' tokens from where they lie. The
//! metadata service is where `azure.metadata_url` says: a documented key, so the program has no way in for tests.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use harness::{World, text, until};
use stand_in::evidence::{
    Allow, AzureCloud, AzureRule, IdTokenRules, ManagedIdentity, MetadataService, TokenIssuer, VirtualMachine,
};
use stand_in::{Options, Release, Token};

const SUBSCRIPTION: &str = "11111111-1111-1111-1111-111111111111";

struct Azure {
    world: World,
    service: MetadataService,
}

impl Azure {
    async fn new(release: Release, group: &str) -> Self {
        let machine = VirtualMachine {
            subscription: SUBSCRIPTION.into(),
            resource_group: "group1".into(),
            name: "vm1".into(),
            id: "33333333-3333-3333-3333-333333333333".into(),
        };
        let cloud = Arc::new(AzureCloud::new(vec![machine.clone()]).unwrap());
        let mut options = Options { release, ..Options::default() };
        options.platforms.azure = Some(cloud.clone());
        let world = World::with(options).await;
        let rule = AzureRule { subscription: SUBSCRIPTION.into(), resource_groups: vec![group.into()] };
        let allow = Allow::Azure(vec![rule]);
        world.control.add_token(Token { name: "example-bot".into(), bot: "example".into(), allow, ..Token::default() });
        Self { world, service: MetadataService::start(cloud, machine).await.unwrap() }
    }

    /// The guide's file, in one-shot mode.
    fn configure(&self, client_id: &str) {
        self.configure_mode("oneshot: true\n", client_id);
    }

    fn configure_mode(&self, mode: &str, client_id: &str) {
        let text = format!(
            "version: v2\n{mode}{}\nonboarding:\n  join_method: azure\n  token: example-bot\n  azure:\n    \
             {client_id}metadata_url: {}\nstorage:\n  type: memory\noutputs: []\n",
            self.world.proxy(),
            self.service.url()
        );
        std::fs::write(self.world.path("tbot.yaml"), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_works_as_it_stands() {
    let azure = Azure::new(Release::V15, "group1").await;
    azure.service.throttle(1);
    azure.configure("");
    let log = azure.world.succeeds().await;
    assert!(log.contains("Successfully registered via proxy server"), "{log}");
    assert!(azure.service.requests().iter().any(|asked| asked.starts_with("/metadata/attested/document?")));

    // The other mode: the command line of the unit, which goes on until it is stopped.
    azure.configure_mode("", "");
    let (file, units) = (azure.world.path("tbot.yaml"), azure.world.folder.path());
    let flags = ["--user", "teleport", "--group", "teleport", "--anonymous-telemetry", "--write"];
    let mut install = std::process::Command::new(harness::binary());
    install.args(["install", "systemd"]).args(flags).arg("--config").arg(&file).arg("--systemd-directory").arg(units);
    let installed = install.env_clear().output().unwrap();
    assert!(installed.status.success(), "{}", text(&installed));
    let unit = azure.world.read("tbot.service");
    assert!(unit.contains("\nUser=teleport\nGroup=teleport\n") && unit.contains("TELEMETRY=1"), "{unit}");
    assert!(
        unit.contains(&format!("\nExecStart={} start -c {}\n", harness::binary().display(), file.display())),
        "{unit}"
    );
    let mut daemon = azure.world.daemon();
    until("it has joined", || daemon.log().contains("Fetched new bot identity")).await;
    daemon.signal(rustix::process::Signal::HUP);
    until("it joins again: its identity is not renewable", || {
        daemon.log().matches("Fetched new bot identity").count() == 2
    })
    .await;
    assert_eq!(daemon.log().matches("Successfully registered").count(), 2, "{}", daemon.log());
    assert!(daemon.running());
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ended().await, Some(0));
}

/// Every renewal is a join, over the connection of the identity before: the cluster goes on counting one instance.
#[tokio::test(flavor = "multi_thread")]
async fn who_renews_by_joining_stays_one_instance() {
    let azure = Azure::new(Release::Newest, "group1").await;
    azure.configure("");
    let text = azure.world.read("tbot.yaml");
    let store = azure.world.path("store");
    let kept = text.replace("  type: memory", &format!("  type: directory\n  path: {}", store.display()));
    std::fs::write(azure.world.path("tbot.yaml"), kept.replace("oneshot: true\n", "")).unwrap();
    let instance = || {
        let stored = identity::TlsCertificate::parse(azure.world.read("store/tlscert").as_bytes()).unwrap();
        stored.subject.attribute("2.20").unwrap().to_owned()
    };
    let (mut first, mut last) = (None, String::new());
    for run in 0..2 {
        let daemon = azure.world.daemon();
        for renewal in 1..=2 {
            let renewed = || daemon.log().matches("Fetched new bot identity").count() == renewal;
            until("it has an identity", renewed).await;
            assert_eq!(first.get_or_insert_with(instance), &instance(), "run {run}: {}", daemon.log());
            daemon.signal(rustix::process::Signal::HUP);
        }
        last = daemon.log();
    }
    assert!(!last.contains("Successfully registered"), "{last}");
    // Without the old identity it is another one.
    std::fs::remove_dir_all(&store).unwrap();
    let daemon = azure.world.daemon();
    until("it has joined anew", || daemon.log().contains("Fetched new bot identity")).await;
    assert_ne!(first.unwrap(), instance());
}

/// An outage longer than the identity lives: who can prove itself again does, without anybody's help.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_expired_in_an_outage_joins_again() {
    for release in [Release::V15, Release::Newest] {
        let azure = Azure::new(release, "group1").await;
        azure.configure_mode("", "");
        let mut daemon = azure.world.daemon();
        let fetched = || daemon.log().matches("Fetched new bot identity").count();
        until("it has an identity", || fetched() == 1).await;
        azure.world.control.cap_ttl(Duration::from_secs(2));
        daemon.signal(rustix::process::Signal::HUP);
        until("it lives for two seconds", || fetched() == 2).await;
        azure.world.control.stop_listening();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(daemon.running());
        azure.world.control.cap_ttl(Duration::from_secs(3600));
        let before = daemon.log().matches("Successfully registered").count();
        azure.world.control.start_listening().await.unwrap();
        // Spares the test the rest of a pause between two tries.
        daemon.signal(rustix::process::Signal::HUP);
        until("it joins again", || daemon.log().matches("Successfully registered").count() > before).await;
        until("and works again", || daemon.log().contains("bot identity is renewed again")).await;
        assert!(daemon.running());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_identity_is_said_with_its_remedy() {
    let azure = Azure::new(Release::V15, "group1").await;
    azure.configure("client_id: unknown\n    ");
    let message = azure.world.fails().await;
    assert!(message.contains("Identity not found") && message.contains("`azure.client_id`"), "{message}");
    let identity = |client_id: &str| ManagedIdentity { client_id: client_id.into(), resource_id: "x".into() };
    azure.service.set_identities(vec![identity("one"), identity("two")]);
    azure.configure("");
    let message = azure.world.fails().await;
    assert!(message.contains("name one of them with `azure.client_id`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_group_is_not_let_in() {
    let azure = Azure::new(Release::V15, "group2").await;
    azure.configure("");
    let message = azure.world.fails().await;
    assert!(message.contains("instance did not match any allow rules"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_tokens_come_from_a_variable_or_a_file() {
    let issuer = Arc::new(TokenIssuer::new("https://ci.example.com").unwrap());
    let mut options = Options::default();
    options.platforms.issuers.push(issuer.clone());
    let world = World::with(options).await;
    let audience = "teleport.cluster.local";
    let jwt = issuer.sign(serde_json::json!({ "aud": audience, "sub": "job" })).unwrap();
    std::fs::write(world.path("jwt"), &jwt).unwrap();
    let file = world.path("jwt").to_str().unwrap().to_owned();
    for (method, variable, value) in
        [("gitlab", "TBOT_GITLAB_JWT", jwt.as_str()), ("kubernetes", "KUBERNETES_TOKEN_PATH", file.as_str())]
    {
        let allow = vec![BTreeMap::from([("sub".to_owned(), "job".to_owned())])];
        let rules =
            IdTokenRules { method: method.into(), issuer: issuer.url().into(), audience: Some(audience.into()), allow };
        world.control.add_token(Token {
            name: method.into(),
            bot: method.into(),
            allow: Allow::IdToken(rules),
            ..Token::default()
        });
        let config = format!(
            "version: v2\n{}\nonboarding: {{join_method: {method}, token: {method}}}\nstorage: {{type: memory}}\noutputs: []\n",
            world.proxy()
        );
        std::fs::write(world.path("tbot.yaml"), config).unwrap();
        let run = |set: bool| {
            let mut command = world.tbot(&["--oneshot"]);
            if set {
                command.env(variable, value);
            }
            tokio::task::spawn_blocking(move || command.output().unwrap())
        };
        let output = run(true).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{method}: {}", text(&output));
        assert!(!text(&output).contains(&jwt));
        let output = run(false).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{method} without its token");
    }
}
