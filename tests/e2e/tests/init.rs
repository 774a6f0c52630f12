//! `tbot init` as the guides use it, then a bot as the user it was prepared for, and a reader.
//!
//! Run by root, bot and reader are users of their own; run by anybody else, all that runs is the bot.

mod harness;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use harness::{APP, World, binary, names, text};

/// Numbers need no account.
const READER: u32 = 4343;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn bot() -> u32 {
    if root() { 4242 } else { rustix::process::geteuid().as_raw() }
}

fn bot_group() -> u32 {
    if root() { 4242 } else { rustix::process::getegid().as_raw() }
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn init(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("init").arg("-c").arg(world.path("tbot.yaml")).args(arguments).env_clear();
    run(command)
}

/// A copy of the program and of what it reads where every user can get at them.
fn open_to_all(world: &World) {
    for (name, mode) in [("", 0o755), ("tbot.yaml", 0o644), ("web-ca.pem", 0o644)] {
        std::fs::set_permissions(world.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::hard_link(binary(), world.path("tbot"))
        .or_else(|_| std::fs::copy(binary(), world.path("tbot")).map(drop))
        .unwrap();
    std::fs::create_dir(world.path("store")).unwrap();
    if root() {
        chown(world.path("store"), Some(bot()), Some(bot_group())).unwrap();
    }
}

async fn oneshot(world: &World) -> String {
    let mut command = Command::new(world.path("tbot"));
    command.args(["start", "--oneshot", "-c"]).arg(world.path("tbot.yaml")).env_clear();
    command.env("SSL_CERT_FILE", world.path("web-ca.pem"));
    if root() {
        command.gid(bot_group()).uid(bot());
    }
    let output = tokio::task::spawn_blocking(move || run(command)).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Does `cat` of that file work for the reader?
fn readable(path: &Path, by: u32) -> bool {
    let mut command = Command::new("cat");
    command.arg(path).gid(by).uid(by);
    run(command).status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_prepares_the_bot_fills_and_the_reader_reads() {
    for layout in ["plain", "generations"] {
        let world = World::new().await;
        let out = world.path("out");
        let output = format!(
            "- {{type: application, app_name: {APP}, specific_tls_naming: true, destination: {{type: directory, path: {}, layout: {layout}}}}}\n",
            out.display()
        );
        world.configure(&world.proxy(), "", &output);
        open_to_all(&world);
        let (directory, users) = (format!("--init-dir={}", out.display()), format!("{}:{}", bot(), bot_group()));
        let (owner, user, reader) =
            (format!("--owner={users}"), format!("--bot-user={}", bot()), format!("--reader-user={READER}"));
        let flags = [&*directory, &*owner, &*user, &*reader];
        let prepared = init(&world, &flags);
        assert_eq!(prepared.status.code(), Some(0), "{}", text(&prepared));
        for words in [
            "Initializing destination: directory:",
            "Attempting to create: ",
            "Created: ",
            "Nothing to remove.",
            "has been initialized. Note that",
        ] {
            assert!(text(&prepared).contains(words), "{words}: {}", text(&prepared));
        }
        let mut wanted = names(&out);
        assert!(wanted.contains(&"tls.cas".to_owned()) && wanted.contains(&".write-test".to_owned()), "{wanted:?}");
        assert!(text(&init(&world, &flags)).contains("Nothing to create."));

        oneshot(&world).await;
        oneshot(&world).await;
        world.app_answers("out").await;
        let mut found = names(&out);
        found.retain(|name| !name.starts_with(".."));
        wanted.retain(|name| !name.starts_with(".."));
        assert_eq!(found, wanted);
        for name in ["key", "tlscert", "tls.key"] {
            let metadata = out.join(name).metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777), (bot(), 0o640), "{name}");
            if root() {
                assert!(readable(&out.join(name), READER) && !readable(&out.join(name), READER + 1), "{name}");
            }
        }
        // Again over what the bot wrote: it stays.
        let key = world.read("out/key");
        let again = text(&init(&world, &flags));
        assert!(again.contains("Nothing to create.") && again.contains("Nothing to remove."), "{again}");
        assert_eq!(world.read("out/key"), key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_is_told_wrong_it_says_in_the_words_of_the_original() {
    let world = World::new().await;
    world.configure(&world.proxy(), "", &["one", "two"].map(|out| world.output(APP, out)).concat());
    let one = format!("--init-dir={}", world.path("one").display());
    for (arguments, words) in [
        (&[][..], "An output to initialize must be specified with --init-dir"),
        (
            &["--init-dir=/nonexistent"],
            "Cannot initialize destination \"/nonexistent\" because it has not been configured.",
        ),
        (&[&one, "--owner=root"], "invalid owner string: \"root\""),
    ] {
        let output = init(&world, arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(&format!("ERROR: {words}")), "{words}: {}", text(&output));
    }
    assert!(!world.path("one").exists());
    for (arguments, words) in [
        (&[&*one][..], "--bot-user must be set"),
        (&[&*one, "--bot-user=nouser", "--reader-user=app"], "unknown user nouser"),
    ] {
        let output = text(&init(&world, arguments));
        assert!(
            output.contains("ACLs are not usable for destination directory: ") && output.contains(words),
            "{output}"
        );
    }
    assert_eq!(world.path("one").metadata().unwrap().mode() & 0o777, 0o700);
    // How and where to join may be left to the command line of `tbot start`.
    let four = world.path("four");
    let config = format!(
        "version: v2\noutputs:\n- {{type: identity, destination: {{type: directory, path: {}, acls: off}}}}\n",
        four.display()
    );
    std::fs::write(world.path("tbot.yaml"), config).unwrap();
    let output = init(&world, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(names(&four).contains(&"known_hosts".to_owned()));
    // Without a configuration it is an identity output.
    let mut command = Command::new(binary());
    command.arg("init").arg("--destination-dir").arg(world.path("three")).env_clear();
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(names(&world.path("three")).contains(&"ssh_config".to_owned()));
}
