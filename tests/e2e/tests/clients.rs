//! Unmodified clients and servers from Debian's packages, with the files that outputs write.

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use harness::{TOKEN, World, text};
use stand_in::{Options, Release};

/// The database of `example-server` with a format: whom its files name is signed by the cluster.
fn database(world: &World, format: &str, out: &str) -> String {
    let path = world.path(out).display().to_string();
    format!(
        "- {{type: database, service: example-server, format: {format}, destination: {{type: directory, path: {path}}}}}\n"
    )
}

async fn written(outputs: impl Fn(&World) -> String) -> World {
    let world = World::new().await;
    world.control.add_database("example-server", "postgres", "127.0.0.1:1");
    world.configure(&world.auth(), &world.pin(), &outputs(&world));
    world.succeeds().await;
    world
}

/// Runs a command without holding up the cluster, which lives in this process.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// `openssl s_server` with a certificate of the databases' authority; it asks for one of the cluster's users.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    fn start(world: &World, users: &str) -> Self {
        let files = world.control.sign_database().unwrap();
        std::fs::write(world.path("server.crt"), files.certificate).unwrap();
        std::fs::write(world.path("server.key"), files.key).unwrap();
        let mut command = openssl(&["s_server", "-4", "-accept", "0", "-naccept", "1", "-rev", "-Verify", "1"]);
        command.args(["-verify_return_error", "-cert", "server.crt", "-key", "server.key", "-CAfile", users]);
        command.current_dir(world.folder.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().unwrap().starts_with("ACCEPT ")).unwrap().unwrap();
        // The rest is read so that the server never waits for room.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, port: line.rsplit(':').next().unwrap().to_owned() }
    }

    /// What comes back for a line, from a server that the client verifies as `localhost`.
    fn reversed(self, world: &World, files: &[&str]) -> String {
        let address = format!("localhost:{}", self.port);
        let mut command = openssl(&["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "localhost"]);
        command.args(["-connect", &address]).args(files).current_dir(world.folder.path());
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        // The server ends the connection at this word; it may have ended before.
        let _ = input.write_all(b"hello\nCLOSE\n");
        let output = client.wait_with_output().unwrap();
        drop(input);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_with_the_files_of_every_format_for_databases() {
    let world = written(|world| {
        let tls = "[{name: tls, ca_cert_type: db}, mongo, cockroach, \
                   {name: pem-bundle, file_name: all.pem, order: [certificate, key, database-authorities]}]";
        database(world, tls, "out") + &database(world, "{name: tls, ca_cert_type: user}", "other")
    })
    .await;
    let users = "out/teleport-user-ca.crt";
    for files in [
        ["-cert", "out/tls.crt", "-key", "out/tls.key", "-CAfile", "out/tls.cas"].as_slice(),
        // `tlsCertificateKeyFile` and `tlsCAFile`: one file for both, read as drivers do where no file of the key is named.
        &["-cert", "out/mongo.crt", "-CAfile", "out/mongo.cas"],
        // `--certs-dir`: CockroachDB's own names.
        &["-cert", "out/cockroach/node.crt", "-key", "out/cockroach/node.key", "-CAfile", "out/cockroach/ca.crt"],
        &["-cert", "out/all.pem", "-CAfile", "out/all.pem"],
    ] {
        assert_eq!(Server::start(&world, users).reversed(&world, files), "olleh\n", "{files:?}");
    }
    // CockroachDB refuses a key that others may read.
    let mode = world.path("out/cockroach/node.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Either side refuses whom it does not know.
    let wrong = ["-cert", "out/tls.crt", "-key", "out/tls.key", "-CAfile", "other/tls.cas"];
    assert_eq!(Server::start(&world, users).reversed(&world, &wrong), "");
    let right = ["-cert", "out/tls.crt", "-key", "out/tls.key", "-CAfile", "out/tls.cas"];
    assert_eq!(Server::start(&world, "out/teleport-host-ca.crt").reversed(&world, &right), "");
}

/// A file over `ssh` with an `identity` output from an `sshd` with an `ssh_host` output: both certificates are verified.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_with_our_identity_into_sshd_with_our_host_certificate() {
    // A file of the first schema has both in one directory.
    for (release, identity, host) in
        [(Release::V12, "both", "both"), (Release::V15, "identity", "host"), (Release::Newest, "identity", "host")]
    {
        let world = World::with(Options { release, ..Options::default() }).await;
        let node = format!("node.{}", world.cluster.cluster_name());
        let path = |name: &str| world.path(name).display().to_string();
        if identity == host {
            let first = format!(
                "{}\nonboarding: {{token: {TOKEN}, {}}}\nstorage: {{directory: {}}}\n\
                 destinations: [{{directory: {}, configs: [{{ssh_host_cert: {{principals: [{node}]}}}}]}}]\n",
                world.auth(),
                world.pin(),
                path("store"),
                path("both"),
            );
            std::fs::write(world.path("tbot.yaml"), first).unwrap();
        } else {
            let outputs = format!(
                "- {{type: identity, destination: {{type: directory, path: {}}}}}\n\
                 - {{type: ssh_host, principals: [{node}], destination: {{type: directory, path: {}}}}}\n",
                path(identity),
                path(host),
            );
            world.configure(&world.auth(), &world.pin(), &outputs);
        }
        world.succeeds().await;
        // The stand-in's bots may be this login; whoever runs the test takes its place.
        std::fs::write(world.path("principals"), "root\n").unwrap();
        let (identity, host) = (path(identity), path(host));
        let sshd = format!(
            "HostKey {host}/ssh_host\nHostCertificate {host}/ssh_host-cert.pub\nTrustedUserCAKeys {host}/ssh_host-user-ca.pub\n\
             AuthorizedPrincipalsFile {}\nAuthorizedKeysFile none\nAuthenticationMethods publickey\nPermitRootLogin yes\n\
             StrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\n",
            path("principals"),
        );
        std::fs::write(world.path("sshd_config"), sshd).unwrap();
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        std::fs::write(world.path("far"), "hello\n").unwrap();
        let hosts = sshd_for_each_connection(["-i", "-E", &path("sshd.log"), "-f", &path("sshd_config")]);
        for name in ["node", "other"] {
            world.control.add_host(name, &hosts);
        }
        let ssh = |host: &str| {
            // No shell: who runs the test may have none.
            let mut command = Command::new("sftp");
            command.args(["-F", &format!("{identity}/ssh_config")]).args(["-o", "BatchMode=yes"]);
            if release == Release::V12 {
                // Its proxy knows no way that `tbot proxy ssh` knows: see below.
                let server =
                    format!("ProxyCommand=/usr/sbin/sshd -i -E {} -f {}", path("sshd.log"), path("sshd_config"));
                command.args(["-o", &server]);
            }
            command.env("SSL_CERT_FILE", path("web-ca.pem"));
            command.args(["-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none"]);
            command.args([format!("{host}:{}", path("far")), path("near")]);
            command.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
            command
        };
        if release == Release::V12 {
            let server = format!("--proxy=localhost:{}", world.cluster.proxy_addr().port());
            let places = ["proxy", "--destination-dir", &identity, &server, "ssh", &node];
            let message = world.refused(&places).await;
            let words = "the cluster is of version 12.0.0, and its proxy offers SSH to `tbot` from version 13 on";
            assert!(message.contains(words), "{message}");
        }
        let answer = output(ssh(&node)).await;
        let log = || world.read("sshd.log");
        if log().contains("not allowed because account is locked") {
            eprintln!("SKIPPED: sshd lets nobody into the locked account that runs this test");
            return;
        }
        assert!(answer.status.success(), "{release:?}: {}{}", text(&answer), log());
        assert_eq!(world.read("near"), "hello\n");
        assert!(log().contains("Accepted certificate ID \"bot-robot\""), "{}", log());
        // The certificate is for one host; and the key is nothing without a certificate of a known authority.
        let other = output(ssh(&node.replace("node", "other"))).await;
        assert!(!other.status.success() && text(&other).contains("Host key verification failed"), "{}", text(&other));
        std::fs::copy(format!("{identity}/key.pub"), format!("{host}/ssh_host-user-ca.pub")).unwrap();
        let unknown = output(ssh(&node)).await;
        assert!(!unknown.status.success() && text(&unknown).contains("Permission denied"), "{}", text(&unknown));
    }
}

/// An address where every connection gets a server of its own, as inetd does it.
fn sshd_for_each_connection(arguments: [&str; 5]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let arguments = arguments.map(str::to_owned);
    std::thread::spawn(move || {
        while let Ok((connection, _)) = listener.accept() {
            let mut sshd = Command::new("/usr/sbin/sshd");
            sshd.args(&arguments)
                .stdout(OwnedFd::from(connection.try_clone().unwrap()))
                .stdin(OwnedFd::from(connection));
            sshd.status().unwrap();
        }
    });
    address
}

/// Key, chain and authorities in one file, and the private key for a plugin only where the operator says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_store_under_a_password() {
    let world = World::new().await;
    world.control.add_database("example-server", "postgres", "127.0.0.1:1");
    std::fs::write(world.path("password"), "changeit\n").unwrap();
    let format =
        format!("{{name: pkcs12, password_file: {}, file_name: client.p12}}", world.path("password").display());
    world.configure(&world.auth(), &world.pin(), &database(&world, &format, "out"));
    let refused = world.fails().await;
    assert!(
        refused.contains("add `{name: pkcs12, kind: format, grants: {private_key: reveal}}` to `plugins`"),
        "{refused}"
    );
    assert!(
        world.control.calls("RegisterUsingToken") == 0 && !world.path("out").exists(),
        "it got to work all the same"
    );
    let config = world.read("tbot.yaml") + "plugins:\n- {name: pkcs12, kind: format, grants: {private_key: reveal}}\n";
    std::fs::write(world.path("tbot.yaml"), config).unwrap();
    let log = world.succeeds().await;
    assert!(log.contains("The format plugin `pkcs12` is shown private keys"), "{log}");
    assert!(!log.contains("changeit"), "{log}");
    let read = |more: &str| {
        let line = format!("pkcs12 -in out/client.p12 -passin file:password -nodes {more}");
        let mut command = openssl(&line.split_whitespace().collect::<Vec<_>>());
        let output = command.current_dir(world.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let certificate = world.read("out/tlscert");
    assert!(read("-clcerts -nokeys").contains(&certificate));
    for authority in ["out/teleport-user-ca.crt", "out/teleport-host-ca.crt"] {
        assert!(read("-cacerts -nokeys").contains(&world.read(authority)), "{authority}");
    }
    // The key as the other files have it.
    std::fs::write(world.path("key.pem"), read("-nocerts")).unwrap();
    let public = |key: &str| {
        let output = openssl(&["pkey", "-pubout", "-in", key]).current_dir(world.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        output.stdout
    };
    assert_eq!(public("key.pem"), public("out/key"));
    // And a server takes it.
    std::fs::write(world.path("all.pem"), read("")).unwrap();
    let files = ["-cert", "all.pem", "-CAfile", "out/teleport-database-ca.crt"];
    assert_eq!(Server::start(&world, "out/teleport-user-ca.crt").reversed(&world, &files), "olleh\n");
}
