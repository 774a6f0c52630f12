//! `tbot init` as the guides use it. What bot and reader may do with what it prepared is tried in the room `storage`.

mod harness;

use std::os::unix::fs::MetadataExt;
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

#[tokio::test(flavor = "multi_thread")]
async fn init_prepares_what_the_outputs_will_write() {
    for layout in ["plain", "generations"] {
        let world = World::new().await;
        let out = world.path("out");
        let output = format!(
            "- {{type: application, app_name: {APP}, specific_tls_naming: true, destination: {{type: directory, path: {}, layout: {layout}}}}}\n",
            out.display()
        );
        world.configure(&world.proxy(), "", &output);
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
        let wanted = names(&out);
        assert!(wanted.contains(&"tls.cas".to_owned()) && wanted.contains(&".write-test".to_owned()), "{wanted:?}");
        assert!(text(&init(&world, &flags)).contains("Nothing to create."));

        for name in ["key", "tlscert", "tls.key"] {
            let metadata = out.join(name).metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777), (bot(), 0o640), "{name}");
        }
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
    // Without a configuration it is an identity output.
    let mut command = Command::new(binary());
    command.arg("init").arg("--destination-dir").arg(world.path("three")).env_clear();
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(names(&world.path("three")).contains(&"ssh_config".to_owned()));
}
