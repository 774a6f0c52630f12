//! Kills and errors at every system call of a switch, injected by `strace` into a process of its own: this test binary again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use identity::{Destination, OutputFile, RelativePath};
use storage::{Directory, Layout, Rules};
use zeroize::Zeroizing;

const FILES: [&str; 3] = ["tlscert", "key", "cockroach/node.key"];
const FOLDER: &str = "TBOT_TEST_FOLDER";
const GENERATIONS: &str = "TBOT_TEST_GENERATIONS";
/// Every call that changes something: between any two of them nothing changes, so that a kill at each sees every state.
const CHANGES: [&str; 9] =
    ["mkdirat", "fchmod", "fallocate", "ftruncate", "fsync", "renameat", "renameat2", "symlinkat", "unlinkat"];
/// And those that may fail besides. `openat` is left out: the start of any process fails with it.
const MORE: [&str; 5] = ["openat2", "pwrite64", "flock", "fgetxattr", "readlinkat"];
/// The errors, and what an operator is told to do.
const ERRORS: [(&str, &str); 5] = [
    ("ENOSPC", "make room"),
    ("EACCES", "does not have permission"),
    ("EROFS", "mount it writable"),
    ("EIO", "the disk fails"),
    ("EINTR", "never told"),
];

fn set(generation: &str) -> Vec<OutputFile> {
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(generation.as_bytes().to_vec()),
    };
    FILES.map(file).to_vec()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn directory(folder: &Path, layout: Layout) -> Directory {
    Directory::new(folder, Rules { layout, ..Rules::default() }).unwrap()
}

#[test]
#[ignore = "the body of another process"]
fn writes_once() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let layout = if std::env::var_os(GENERATIONS).is_some() { Layout::Generations } else { Layout::Plain };
    run(directory(folder.as_ref(), layout).write(set("new"))).unwrap_or_else(|failure| {
        eprintln!("{failure}");
        std::process::exit(3);
    });
}

/// One write under `strace`, which does `fault` at call number `at` of that name in each thread. Says whether it came to that.
fn write_with(folder: &Path, layout: Layout, call: &str, fault: &str, at: u32) -> (Output, bool) {
    write_under(&[], folder, layout, call, &format!("{fault}:when={at}"))
}

/// The same with more `options`, and the calls among what is done to them.
fn write_under(options: &[&str], folder: &Path, layout: Layout, call: &str, injection: &str) -> (Output, bool) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{injection}"));
    command.args(["-f", "-qq", "-e", &trace, "-e", &inject]).args(options).arg("-o");
    command.arg(log.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "writes_once", "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).env_remove(GENERATIONS).stdin(Stdio::null());
    if layout == Layout::Generations {
        command.env(GENERATIONS, "1");
    }
    let output =
        command.output().unwrap_or_else(|e| panic!("strace cannot be run: {e}: `cargo xtask test` installs it"));
    let log = std::fs::read_to_string(log.path()).unwrap();
    let hit = log.contains("(INJECTED)") || output.status.signal() == Some(9);
    (output, hit)
}

/// The one generation that all files are of, as the agent reads them.
fn whole(folder: &Path, layout: Layout) -> String {
    let read = |name| run(directory(folder, layout).read(name)).unwrap().unwrap();
    let all = FILES.map(|name| String::from_utf8(read(name).to_vec()).unwrap());
    assert!(all.iter().all(|one| *one == all[0]), "mixed: {all:?}");
    all[0].clone()
}

/// The same as a reader that knows nothing of us sees it, through `..data`.
fn seen(folder: &Path) -> String {
    let all = FILES.map(|name| std::fs::read_to_string(folder.join("..data").join(name)).unwrap());
    assert!(all.iter().all(|one| *one == all[0]), "mixed: {all:?}");
    all[0].clone()
}

/// Tries a fault at the first call of that name, the second and so on, until a write has no more; returns how many it had.
fn at_every(layout: Layout, call: &str, fault: &str, check: &dyn Fn(&Output)) -> u32 {
    for at in 1..200 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let destination = directory(path, layout);
        run(destination.write(set("old"))).unwrap();
        let (output, hit) = write_with(path, layout, call, fault, at);
        let context = format!("{call} {fault} {at}: {}", String::from_utf8_lossy(&output.stderr));
        if layout == Layout::Generations {
            seen(path);
        }
        let found = whole(path, layout);
        assert!(found == "new" || (found == "old" && !output.status.success()), "{found}: {context}");
        match hit {
            true => check(&output),
            false => assert!(output.status.success(), "{context}"),
        }
        run(destination.prepare()).unwrap();
        run(destination.write(set("healed"))).unwrap();
        assert_eq!(whole(path, layout), "healed");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut left: Vec<_> = std::fs::read_dir(path).unwrap().map(name).collect();
        left.retain(|name| name.starts_with(".tbot-") || name == "..fresh");
        assert!(left.is_empty(), "{left:?}: {context}");
        if !hit {
            return at - 1;
        }
    }
    panic!("{call}: no end");
}

fn kill_at_every_call(layout: Layout) {
    let killed = |output: &Output| assert_eq!(output.status.signal(), Some(9));
    let kills: u32 = CHANGES.iter().map(|call| at_every(layout, call, "signal=KILL", &killed)).sum();
    assert!(kills > 30, "only {kills} calls were found");
}

#[test]
fn kill_9_at_every_call_leaves_a_whole_set_in_the_plain_layout() {
    kill_at_every_call(Layout::Plain);
}

#[test]
fn kill_9_at_every_call_leaves_a_whole_set_in_generations() {
    kill_at_every_call(Layout::Generations);
}

/// A disk that says it has written and has not: found out while the old set is still in place.
#[test]
fn what_does_not_read_back_as_written_is_not_switched_to() {
    for layout in [Layout::Plain, Layout::Generations] {
        // The call does nothing and says that it wrote the three bytes of `new`.
        let lies = at_every(layout, "pwrite64", "retval=3", &|output| {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("does not hold what was written"), "{text}");
        });
        assert_eq!(lies as usize, FILES.len(), "{layout:?}");
    }
}

fn fail_at_every_call(layout: Layout) {
    // Each call gets one of the errors that matter for it, so that the test ends on a slow machine, too.
    let mut errors = 0;
    for (at, call) in CHANGES.iter().chain(&MORE).enumerate() {
        for (error, advice) in [ERRORS[at % 4], ERRORS[4]] {
            errors += at_every(layout, call, &format!("error={error}"), &|output| {
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() || text.contains(advice), "{call} {error}: {text}");
            });
        }
    }
    assert!(errors > 100, "only {errors} calls were found");
}

#[test]
fn an_error_at_any_call_keeps_the_old_set_or_has_the_new_and_says_what_to_do_in_the_plain_layout() {
    fail_at_every_call(Layout::Plain);
}

#[test]
fn an_error_at_any_call_keeps_the_old_set_or_has_the_new_and_says_what_to_do_in_generations() {
    fail_at_every_call(Layout::Generations);
}

/// As a folder shared with a virtual machine's host.
#[test]
fn a_file_system_that_syncs_no_directories_is_written_all_the_same() {
    for layout in [Layout::Plain, Layout::Generations] {
        let folder = tempfile::tempdir().unwrap();
        run(directory(folder.path(), layout).write(set("old"))).unwrap();
        // Calls on the directory itself alone.
        let only = ["-P", folder.path().to_str().unwrap()];
        let (output, hit) = write_under(&only, folder.path(), layout, "fsync", "error=EINVAL:when=1+");
        assert!(output.status.success() && hit, "{layout:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(whole(folder.path(), layout), "new");
    }
}
