//! The files of whole configurations beside those that the original wrote for them on real clusters (`tests/recordings`): the same
//! names, the same modes, and the same bytes but for keys, certificates and places.

mod harness;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::{World, binary};
use stand_in::{Options, Release};

/// Where everything lay on the machine of the recordings.
const RECORDED: &str = "/opt/machine-id";

/// A recorded run, and its configuration with a stand-in in the place of the cluster.
struct Run {
    world: World,
    files: PathBuf,
    config: String,
    proxy: &'static str,
}

impl Run {
    async fn new(run: &str, cluster: &str, release: Release, auth: &str, proxy: &'static str) -> Self {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recordings").join(run);
        let world = World::with(Options { cluster_name: cluster.into(), release, ..Options::default() }).await;
        world.control.add_app("tcp-example", "tcp.localhost", "tcp://127.0.0.1:1");
        world.control.add_database("example-server", "postgres", "127.0.0.1:1");
        let config = std::fs::read_to_string(recorded.join("tbot.yaml")).unwrap();
        let quoted = |start: &str| {
            let at = config.find(start).unwrap_or_else(|| panic!("no `{start}`"));
            config[at..].split(['"', '\n']).next().unwrap().to_owned()
        };
        let token = config.split("token:").nth(1).unwrap().trim().trim_matches('"');
        let token = token.split(['"', '\n']).next().unwrap();
        world.control.add_bot_token(token, "robot", &["machine"]);
        let config = config
            .replace(RECORDED, world.folder.path().to_str().unwrap())
            .replace(auth, &world.cluster.auth_addr().to_string())
            .replace(proxy, &format!("localhost:{}", world.cluster.proxy_addr().port()))
            .replace(&quoted("sha256:"), &world.cluster.ca_pin().unwrap());
        Self { world, files: recorded.join("files"), config, proxy }
    }

    async fn compare(&self, config: &str) {
        std::fs::write(self.world.path("tbot.yaml"), config).unwrap();
        let mut command = std::process::Command::new(binary());
        command.args(["start", "--oneshot", "-c"]).arg(self.world.path("tbot.yaml")).env_clear();
        command.env("SSL_CERT_FILE", self.world.path("web-ca.pem"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", harness::text(&output));
        let recorded = tree(&self.files, &|text| text.to_owned());
        let port = self.world.cluster.proxy_addr().port();
        let program = binary().canonicalize().unwrap();
        let ours = tree(self.world.folder.path(), &|text| {
            let text = text.replace(self.world.folder.path().to_str().unwrap(), RECORDED);
            let text = text.replace(&format!("localhost:{port}"), self.proxy);
            text.replace(program.to_str().unwrap(), "/usr/local/bin/tbot")
        });
        let names = |tree: &BTreeMap<String, String>| tree.keys().cloned().collect::<Vec<_>>();
        let ours: BTreeMap<_, _> = ours.into_iter().filter(|(name, _)| name.contains('/')).collect();
        assert_eq!(names(&ours), names(&recorded));
        for (name, text) in &ours {
            assert_eq!(text, &recorded[name], "{name}");
            let path = self.world.path(name);
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700), "{name}");
        }
    }
}

/// Every file below `folder` whose name does not begin with a dot, without what differs from run to run.
fn tree(folder: &Path, places: &dyn Fn(&str) -> String) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !entry.file_name().to_str().unwrap().starts_with('.') {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                match name.strip_prefix("store/") {
                    // Locks, and a file that the original makes in its storage and never fills.
                    Some(_) if text.is_empty() => {}
                    // The bot's own key is of another kind here: ECDSA.
                    Some(own) if own.starts_with("key") => drop(found.insert(name, "<key>".to_owned())),
                    _ => drop(found.insert(name, shape(&places(&text)))),
                }
            }
        }
    }
    found
}

/// The text with every key and certificate cut out of its frame.
fn shape(text: &str) -> String {
    let mut inside = false;
    let mut shape = String::new();
    for line in text.split_inclusive('\n') {
        inside &= !line.starts_with("-----END ");
        if !inside {
            let word = |word: &str| if word.starts_with("AAAA") { "<key>".to_owned() } else { word.to_owned() };
            let (words, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            shape += &words.split(' ').map(word).collect::<Vec<_>>().join(" ");
            shape += end;
        }
        inside |= line.contains("-----BEGIN ");
    }
    shape
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_second_schema_and_of_the_newest() {
    let run =
        Run::new("v15/runs/oneshot-direct", "lab.example.com", Release::V15, "127.0.0.1:3025", "localhost:3080").await;
    run.compare(&run.config).await;
    // The same under the newest name of the list; the bot is there already.
    run.compare(&run.config.replace("\noutputs:", "\nservices:")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_first_schema() {
    for run in ["v12/runs/direct", "v12/runs/seed-database"] {
        let run = Run::new(run, "old.example.com", Release::V12, "127.0.0.1:4025", "localhost:4080").await;
        run.compare(&run.config).await;
    }
}

/// Names that files of the first schema could choose, in every schema.
#[tokio::test(flavor = "multi_thread")]
async fn chosen_names_in_every_schema() {
    let world = World::new().await;
    world.control.add_database("example-server", "postgres", "127.0.0.1:1");
    let out = |name: &str| world.path(name).display().to_string();
    let first = format!(
        "auth_server: {auth}\nonboarding: {{join_method: token, token: {token}, ca_pins: [{pin}]}}\nstorage: {{directory: {store}}}\n\
         destinations:\n- directory: {one}\n  database: {{service: example-server}}\n  configs:\n  - identity: {{file_name: id}}\n  \
         - tls_cas: {{host_ca_path: h, user_ca_path: u, database_ca_path: d}}\n  - tls: {{prefix: t, ca_cert_type: user}}\n  \
         - mongo: {{prefix: m}}\n  - cockroach: {{dir_name: c}}\n- directory: {two}\n  configs: [{{ssh_host_cert: {{principals: [a], prefix: p}}}}]\n",
        auth = world.cluster.auth_addr(),
        token = harness::TOKEN,
        pin = world.cluster.ca_pin().unwrap(),
        store = out("store"),
        one = out("one"),
        two = out("two"),
    );
    let second = |list: &str| {
        format!(
            "version: v2\nauth_server: {auth}\nonboarding: {{join_method: token}}\nstorage: {{type: directory, path: {store}}}\n{list}:\n\
             - {{type: database, service: example-server, identity_file: id, host_ca_path: h, user_ca_path: u, database_ca_path: d, \
             format: [{{name: tls, prefix: t, ca_cert_type: user}}, {{name: mongo, prefix: m}}, {{name: cockroach, dir_name: c}}, ssh-client], \
             destination: {{type: directory, path: {one}}}}}\n\
             - {{type: ssh_host, principals: [a], prefix: p, destination: {{type: directory, path: {two}}}}}\n",
            auth = world.cluster.auth_addr(),
            store = out("store"),
            one = out("one"),
            two = out("two"),
        )
    };
    for config in [first, second("outputs"), second("services")] {
        std::fs::write(world.path("tbot.yaml"), &config).unwrap();
        world.succeeds().await;
        let names = |folder: &str| tree(&world.path(folder), &|text| text.to_owned()).into_keys().collect::<Vec<_>>();
        let one = "c/ca.crt c/node.crt c/node.key d h id key key-cert.pub key.pub known_hosts m.cas m.crt ssh_config t.cas t.crt t.key tlscert u";
        assert_eq!(names("one").join(" "), one, "{config}");
        // Teleport 12 wrote the user's files beside the host's.
        let user = "identity key key-cert.pub key.pub known_hosts p p-cert.pub p-user-ca.pub ssh_config \
                    teleport-database-ca.crt teleport-host-ca.crt teleport-user-ca.crt tlscert";
        let two = if config.contains("destinations:") { user } else { "p p-cert.pub p-user-ca.pub" };
        assert_eq!(names("two").join(" "), two, "{config}");
        assert_eq!(world.read("one/t.cas"), world.read("one/u"), "`ca_cert_type: user`");
        for folder in ["one", "two"] {
            std::fs::remove_dir_all(world.path(folder)).unwrap();
        }
    }
}

/// Not only the host's part of each example is right, but every plugin's, too.
#[test]
fn every_example_is_understood_by_its_plugins() {
    let tbot = |command: &str, path: &Path| {
        let mut tbot = std::process::Command::new(binary());
        tbot.args([command, "-c"]).arg(path).env_clear().output().unwrap()
    };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/configs");
    let mut count = 0;
    for entry in std::fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        let output = tbot("plan", &path);
        let said = harness::text(&output);
        let excused = match path.file_name().unwrap().to_str().unwrap() {
            "readers.yaml" => said.contains("unknown user app"),
            "third-party-template.yaml" => said.contains("rust_properties.wasm: No such file"),
            _ => false,
        };
        assert!(output.status.success() || excused, "{}: {said}", path.display());
        let said = harness::text(&tbot("validate", &path));
        assert!(!said.contains("no such key"), "{}: {said}", path.display());
        count += 1;
    }
    assert!(count >= 19, "{count} examples");
    let folder = tempfile::tempdir().unwrap();
    let mistyped = folder.path().join("tbot.yaml");
    let formats = std::fs::read_to_string(examples.join("formats.yaml")).unwrap();
    std::fs::write(&mistyped, formats.replace("prefix:", "prefx:")).unwrap();
    let said = harness::text(&tbot("validate", &mistyped));
    let wanted = "outputs[0].format.prefx: `tls` has no such key, it is ignored: did you mean `prefix`?";
    assert!(said.contains(wanted), "{said}");
}
