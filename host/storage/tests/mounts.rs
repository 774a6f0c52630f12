//! File systems that are really full, or really read-only: mounted for one process of its own, which is this test binary again.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use identity::{Destination, Failure, OutputFile, RelativePath};
use storage::{Directory, Layout, Rules};
use zeroize::Zeroizing;

const FILES: [&str; 3] = ["tlscert", "key", "cockroach/node.key"];
const FOLDER: &str = "TBOT_TEST_FOLDER";

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// `unshare` into a mount namespace, and what runs there with the folder as `$1`; users other than root get a user namespace too.
fn unshared(script: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-ec", script, "sh"]).arg(folder).stdin(Stdio::null());
    command
}

/// Runs `body` of this binary with a small tmpfs on a folder of its own. Nothing but a word where namespaces are forbidden.
fn on_a_tmpfs(body: &str) {
    const MOUNT: &str = "mount -t tmpfs -o size=256k,mode=700 none \"$1\"";
    let folder = tempfile::tempdir().unwrap();
    let probe = unshared(MOUNT, folder.path()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this user may not mount a tmpfs in a namespace here, so `{body}` was not tried");
        return;
    }
    let script = format!("{MOUNT}; exec \"$2\" --exact \"$3\" --ignored --nocapture");
    let mut command = unshared(&script, folder.path());
    let output = command.arg(std::env::current_exe().unwrap()).arg(body).env(FOLDER, folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A directory on the mount, in each layout.
fn places() -> [(Directory, Layout); 2] {
    let folder = std::env::var_os(FOLDER).unwrap();
    [("plain", Layout::Plain), ("generations", Layout::Generations)].map(|(name, layout)| {
        let rules = Rules { layout, ..Rules::default() };
        let place = Directory::new(&Path::new(&folder).join(name), rules).unwrap();
        run(place.prepare()).unwrap();
        (place, layout)
    })
}

/// Files of 2 KiB: a page each.
fn write(place: &Directory, generation: &str) -> Result<(), Failure> {
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(generation.repeat(2048 / generation.len()).into_bytes()),
    };
    run(place.write(FILES.map(file).to_vec()))
}

/// Are all files whole, and of this generation?
fn is(place: &Directory, generation: &str) -> bool {
    let whole = generation.repeat(2048 / generation.len()).into_bytes();
    FILES.iter().all(|name| **run(place.read(name)).unwrap().unwrap() == whole)
}

fn mount(option: &str) {
    let folder = std::env::var_os(FOLDER).unwrap();
    assert!(Command::new("mount").args(["-o", option]).arg(folder).status().unwrap().success());
}

#[test]
#[ignore = "the body of another process"]
fn fills_its_file_system() {
    for (place, layout) in places() {
        write(&place, "old").unwrap();
        let ballast = Path::new(&std::env::var_os(FOLDER).unwrap()).join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        drop(file);
        for _ in 0..3 {
            for refused in [run(place.prepare()).unwrap_err(), write(&place, "new").unwrap_err()] {
                assert!(refused.message.contains("make room"), "{layout:?}: {refused}");
            }
            assert!(is(&place, "old"), "{layout:?}: the old set suffered");
        }
        std::fs::remove_file(ballast).unwrap();
        run(place.prepare()).unwrap();
        write(&place, "new").unwrap();
        assert!(is(&place, "new"), "{layout:?}");
    }
}

#[test]
#[ignore = "the body of another process"]
fn loses_the_right_to_write() {
    let places = places();
    for (place, _) in &places {
        write(place, "old").unwrap();
    }
    mount("remount,bind,ro");
    for (place, layout) in &places {
        for refused in [run(place.prepare()).unwrap_err(), write(place, "new").unwrap_err()] {
            assert!(refused.message.contains("mount it writable"), "{layout:?}: {refused}");
        }
        assert!(is(place, "old"), "{layout:?}: the old set suffered");
    }
    mount("remount,bind,rw");
    for (place, layout) in &places {
        write(place, "new").unwrap();
        assert!(is(place, "new"), "{layout:?}");
    }
}

#[test]
fn a_full_file_system_keeps_the_old_set_until_there_is_room() {
    on_a_tmpfs("fills_its_file_system");
}

#[test]
fn a_read_only_mount_keeps_the_old_set_until_it_is_writable() {
    on_a_tmpfs("loses_the_right_to_write");
}
