//! The layout `generations`, and the way there and back.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use identity::{Destination, OutputFile, RelativePath};
use storage::{Directory, Layout, Rules};
use zeroize::Zeroizing;

const FILES: [&str; 4] = ["tlscert", "key", "cockroach/node.crt", "cockroach/node.key"];

fn set(generation: &str) -> Vec<OutputFile> {
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(generation.as_bytes().to_vec()),
    };
    FILES.map(file).to_vec()
}

fn directory(folder: &Path, layout: Layout) -> Directory {
    Directory::new(folder, Rules { layout, ..Rules::default() }).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn link(path: impl AsRef<Path>) -> String {
    std::fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn names_lead_through_data_to_the_newest_of_two_generations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o750)).unwrap();
    let destination = directory(path, Layout::Generations);
    for generation in ["one", "two", "three"] {
        destination.write(set(generation)).await.unwrap();
        for name in FILES {
            assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), generation);
            assert_eq!(destination.read(name).await.unwrap().unwrap().as_slice(), generation.as_bytes());
        }
    }
    assert_eq!(names(path), ["..data", "..gen-2", "..gen-3", "cockroach", "key", "tlscert"]);
    assert_eq!(
        (link(path.join("..data")), link(path.join("cockroach"))),
        ("..gen-3".into(), "..data/cockroach".into())
    );
    for (name, mode) in [("..data/", 0o750), ("..data/cockroach", 0o700), ("key", 0o600), ("cockroach/node.key", 0o600)]
    {
        assert_eq!(path.join(name).metadata().unwrap().mode() & 0o777, mode, "{name}");
    }
    // A name that the set no longer has leads nowhere: it goes.
    destination.write(set("four")[..2].to_vec()).await.unwrap();
    assert_eq!(names(path), ["..data", "..gen-3", "..gen-4", "key", "tlscert"]);
    assert_eq!(destination.read("cockroach/node.key").await.unwrap(), None);
}

/// Reads all names without end while the layout changes to and fro: none is ever missing, and no two differ while the set is the same.
#[test]
fn a_change_of_layout_has_no_moment_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = |layout, generation: &str| {
        let destination = directory(path, layout);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(destination.write(set(generation))).unwrap();
    };
    run(Layout::Plain, "same");
    std::fs::set_permissions(path.join("key"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::set_permissions(path.join("cockroach"), PermissionsExt::from_mode(0o750)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                for name in FILES {
                    assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), "same", "{name}");
                    reads += 1;
                }
            }
            reads
        });
        for _ in 0..20 {
            run(Layout::Generations, "same");
            run(Layout::Plain, "same");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 100);
    });
    assert_eq!(names(path), ["cockroach", "key", "tlscert"]);
    assert!(path.join("key").symlink_metadata().unwrap().is_file());
    let mode = |name: &str| path.join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("key"), mode("tlscert"), mode("cockroach")), (0o640, 0o600, 0o750));
}

#[tokio::test]
async fn nothing_of_others_is_lost_or_followed() {
    for (hostile, words) in [
        ("folder", "holds `cockroach/notes`"),
        ("symlink", "not a regular file"),
        ("fifo", "not a regular file"),
        ("data", "not a link of tbot"),
        ("generation", "remove it"),
    ] {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path();
        std::fs::write(outside.path().join("key"), "precious").unwrap();
        match hostile {
            "folder" => {
                std::fs::create_dir(path.join("cockroach")).unwrap();
                std::fs::write(path.join("cockroach/notes"), "precious").unwrap();
            }
            "symlink" => symlink(outside.path().join("key"), path.join("key")).unwrap(),
            "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, path.join("key"), rustix::fs::Mode::RUSR).unwrap(),
            "data" => symlink(outside.path(), path.join("..data")).unwrap(),
            _ => {
                symlink("..gen-7", path.join("..data")).unwrap();
                std::fs::create_dir(path.join("..gen-7")).unwrap();
                std::fs::set_permissions(path.join("..gen-7"), PermissionsExt::from_mode(0o777)).unwrap();
            }
        }
        let before = names(path);
        let refused = directory(path, Layout::Generations).write(set("new")).await.unwrap_err();
        assert!(refused.message.contains(words), "{hostile}: {refused}");
        assert_eq!(names(path), before, "{hostile}");
        assert_eq!(std::fs::read_to_string(outside.path().join("key")).unwrap(), "precious");
        assert_eq!(names(outside.path()), ["key"], "{hostile}");
    }
}

/// Another process of the same user exchanges names as fast as it can: a write may fail, but nothing outside is read or written.
#[test]
fn names_exchanged_during_a_write_lead_nowhere() {
    for layout in [Layout::Plain, Layout::Generations] {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path();
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let done = AtomicBool::new(false);
        let destination = directory(path, layout);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let write = |generation: &str| runtime.block_on(destination.write(set(generation)));
        write("first").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let names =
                    ["key", "tlscert", "cockroach", ".tbot-staged", ".tbot-commit", "..fresh", "..data", "..gen-3"];
                for round in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    let name = path.join(names[round % names.len()]);
                    let _ = std::fs::rename(&name, path.join("taken"));
                    let target = if round % 3 == 0 { outside.path() } else { &victim };
                    let _ = symlink(target, &name);
                    std::thread::yield_now();
                    let _ = std::fs::remove_file(&name);
                    let _ = std::fs::remove_dir_all(path.join("taken"));
                    let _ = std::fs::remove_file(path.join("taken"));
                }
            });
            for generation in 0..100 {
                let _ = write(&generation.to_string());
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "{layout:?}");
        assert_eq!(names(outside.path()), ["victim"], "{layout:?}");
        // What is left of it is removed by hand, as an error says; then all is well again.
        std::fs::remove_dir_all(path).unwrap();
        std::fs::create_dir(path).unwrap();
        write("last").unwrap();
        assert_eq!(std::fs::read_to_string(path.join("key")).unwrap(), "last");
    }
}
