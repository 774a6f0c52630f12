//! What holds between processes: kills, locks, umasks and rights. The second process is this test binary again.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use identity::{Destination, OutputFile, RelativePath};
use storage::{Directory, Rules};
use zeroize::Zeroizing;

const FILES: [&str; 4] = ["key", "tlscert", "cockroach/node.key", "cockroach/node.crt"];
const FOLDER: &str = "TBOT_TEST_FOLDER";
/// The user `nobody`, who has no rights of its own anywhere.
const NOBODY: u32 = 65534;

fn set(generation: usize) -> Vec<OutputFile> {
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(format!("{generation} ").repeat(1000).into_bytes()),
    };
    FILES.map(file).to_vec()
}

fn directory(folder: &Path) -> Directory {
    Directory::new(folder, Rules::default()).unwrap()
}

/// This binary again, running only the ignored test `body` in `folder`; its first line says that it is under way.
fn child(body: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", body, "--ignored", "--nocapture"]).env(FOLDER, folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.contains("under way")), "{body} ended early");
    child
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn folder() -> std::path::PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

#[test]
#[ignore = "the body of another process"]
fn writes_without_end() {
    run(async {
        let destination = directory(&folder());
        for generation in 0.. {
            destination.write(set(generation)).await.unwrap();
            if generation == 0 {
                println!("\nunder way");
            }
        }
    });
}

#[test]
#[ignore = "the body of another process"]
fn holds_the_lock() {
    let _held = run(directory(&folder()).lock()).unwrap();
    println!("\nunder way");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
#[ignore = "the body of another process"]
fn writes_under_odd_umasks() {
    for (umask, name) in [(0o000, "open"), (0o077, "closed"), (0o222, "odd")] {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        let destination = directory(&folder().join(name).join("below"));
        run(destination.prepare()).unwrap();
        run(destination.write(set(1))).unwrap();
        drop(run(destination.lock()).unwrap());
    }
    println!("\nunder way");
}

#[test]
fn kill_9_at_any_moment_leaves_a_whole_set() {
    let folder = tempfile::tempdir().unwrap();
    let destination = directory(folder.path());
    let mut recovered = 0;
    for round in 0..40 {
        let mut child = child("writes_without_end", folder.path());
        std::thread::sleep(Duration::from_micros(500 * round + 137 * (round % 7)));
        child.kill().unwrap();
        child.wait().unwrap();
        recovered +=
            usize::from(folder.path().join(".tbot-commit").exists() || folder.path().join(".tbot-staged").exists());
        run(destination.prepare()).unwrap();
        let read = |path| run(destination.read(path)).unwrap().unwrap();
        let first = read(FILES[0]);
        assert_eq!(first.len() % 1000, 0);
        for path in FILES {
            assert!(read(path) == first, "{path} is of another generation in round {round}");
        }
        assert!(!folder.path().join(".tbot-commit").exists() && !folder.path().join(".tbot-staged").exists());
    }
    assert!(recovered > 0, "no kill hit a switch: the test shows nothing");
}

#[test]
fn the_lock_is_the_originals_and_ends_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = child("holds_the_lock", folder.path());
    let refused = run(directory(folder.path()).lock()).err().unwrap();
    assert!(refused.message.contains("is tbot already running?"), "{refused}");
    assert!(refused.message.contains(&folder.path().display().to_string()), "{refused}");
    // The original takes BSD's flock on this file.
    let file = std::fs::File::open(folder.path().join("lock")).unwrap();
    assert!(matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    child.kill().unwrap();
    child.wait().unwrap();
    file.try_lock().unwrap();
    assert!(run(directory(folder.path()).lock()).is_err());
}

#[test]
fn modes_are_private_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    assert!(child("writes_under_odd_umasks", folder.path()).wait().unwrap().success());
    for name in ["open", "closed", "odd"] {
        let mode = |path: &str| folder.path().join(name).join(path).metadata().unwrap().permissions().mode() & 0o7777;
        for path in ["", "below", "below/cockroach"] {
            assert_eq!(mode(path), 0o700, "{name}/{path}");
        }
        for path in ["below/key", "below/cockroach/node.key", "below/lock", "below/.write-test"] {
            assert_eq!(mode(path), 0o600, "{name}/{path}");
        }
    }
}

/// As after `tbot init` by root for a bot that owns nothing: its directory may be entered, the prepared files written, no more.
#[test]
fn what_was_prepared_in_a_directory_of_another_is_rewritten_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("cockroach");
    std::fs::create_dir(&inside).unwrap();
    for path in FILES.into_iter().chain([".write-test"]) {
        std::fs::write(folder.path().join(path), "long before ".repeat(1000)).unwrap();
    }
    as_somebody_without_rights(folder.path(), || {
        let destination = directory(folder.path());
        run(destination.prepare()).unwrap();
        run(destination.write(set(7))).unwrap();
        for path in FILES {
            assert!(*run(destination.read(path)).unwrap().unwrap() == *set(7)[0].contents, "{path}");
        }
        let mut surplus = set(8);
        surplus.push(OutputFile { path: RelativePath::parse("new").unwrap(), contents: Zeroizing::new(vec![]) });
        let refused = run(destination.write(surplus)).unwrap_err();
        assert!(refused.message.contains("`new`"), "{refused}");
        assert!(*run(destination.read("key")).unwrap().unwrap() == *set(7)[0].contents, "half a set was written");
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
}

/// A new file would be ours, and its owner could no longer read it: the old one keeps its inode, owner and mode.
#[test]
fn a_file_of_another_in_our_directory_is_rewritten_or_the_old_set_stays() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can prepare files of another");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tlscert = folder.path().join("tlscert");
    let now = || tlscert.metadata().map(|found| (found.ino(), found.uid(), found.mode())).unwrap();
    std::fs::write(&tlscert, "long before ".repeat(1000)).unwrap();
    chown(folder.path(), Some(NOBODY), None).unwrap();
    for (mode, writable) in [(0o666, true), (0o644, false)] {
        std::fs::set_permissions(&tlscert, PermissionsExt::from_mode(mode)).unwrap();
        let before = now();
        as_nobody(|| {
            let destination = directory(folder.path());
            let written = run(destination.write(set(usize::from(!writable))));
            assert_eq!(written.is_ok(), writable, "{written:?}");
            for path in FILES {
                assert!(*run(destination.read(path)).unwrap().unwrap() == *set(0)[0].contents, "{path}");
            }
            if let Err(refused) = written {
                assert!(refused.message.contains("`tlscert`"), "{refused}");
            }
        });
        assert_eq!(now(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}

#[test]
fn a_directory_without_permission_says_who_needs_what() {
    let folder = tempfile::tempdir().unwrap();
    as_somebody_without_rights(folder.path(), || {
        let refused = run(directory(&folder.path().join("new")).prepare()).unwrap_err();
        let uid = rustix::process::geteuid().as_raw();
        for part in ["does not have permission", "chown", &format!("uid {uid}"), &folder.path().display().to_string()] {
            assert!(refused.message.contains(part), "{part}: {refused}");
        }
    });
}

/// Runs `work` without rights to create anything in `folder`, but with those to write what is in it. Root becomes `nobody`.
fn as_somebody_without_rights(folder: &Path, work: impl FnOnce() + Send) {
    let root = rustix::process::geteuid().is_root();
    let lock_down = |mode| {
        for path in [folder.to_owned(), folder.join("cockroach")].iter().filter(|path| path.exists()) {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    if root {
        for path in FILES.into_iter().chain([".write-test"]).map(|path| folder.join(path)).filter(|path| path.exists())
        {
            chown(path, Some(NOBODY), None).unwrap();
        }
    }
    lock_down(0o555);
    match root {
        true => as_nobody(work),
        false => work(),
    }
    lock_down(0o755);
}

fn as_nobody(work: impl FnOnce() + Send) {
    let body = || {
        rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(NOBODY)).unwrap();
        work();
    };
    std::thread::scope(|scope| scope.spawn(body).join().unwrap());
}
