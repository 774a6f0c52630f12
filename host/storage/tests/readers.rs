//! What readers and operators may count on while sets are switched under them.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use identity::{Destination, FailureKind, OutputFile, RelativePath};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use storage::{Directory, Memory, Rules};
use zeroize::Zeroizing;

const ACL: &str = "system.posix_acl_access";

fn file(path: &str, contents: Vec<u8>) -> OutputFile {
    OutputFile { path: RelativePath::parse(path).unwrap(), contents: Zeroizing::new(contents) }
}

fn directory(folder: &Path) -> Directory {
    Directory::new(folder, Rules::default()).unwrap()
}

/// A reader that knows nothing of us: it opens files by name, at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_whole_files_only_and_the_last_one_last() {
    let folder = tempfile::tempdir().unwrap();
    let destination = directory(folder.path());
    let set = |generation: u8| {
        // Another length every time: half a file cannot pass for a whole one.
        let contents = vec![generation; 10_000 + usize::from(generation)];
        vec![file("key", contents.clone()), file("tlscert", contents)]
    };
    destination.write(set(0)).await.unwrap();
    let done = AtomicBool::new(false);
    let path = folder.path();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut newest) = (0_u32, 0);
            while !done.load(Ordering::Relaxed) {
                for name in ["tlscert", "key"] {
                    let contents = std::fs::read(path.join(name)).unwrap();
                    let generation = contents[0];
                    assert_eq!(contents.len(), 10_000 + usize::from(generation), "half a file");
                    assert!(contents.iter().all(|byte| *byte == generation), "a mixture");
                    // Having seen the last file of a set, one sees all of it.
                    assert!(generation >= newest, "{name} is older than the certificate seen before");
                    newest = newest.max(if name == "tlscert" { generation } else { 0 });
                }
                reads += 1;
            }
            reads
        });
        for generation in 1..200 {
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(destination.write(set(generation))).unwrap();
            });
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 10);
    });
}

#[tokio::test]
async fn two_writers_of_one_directory_never_mix_their_sets() {
    let folder = tempfile::tempdir().unwrap();
    let set = |who: &str| ["a", "b", "c", "d"].map(|name| file(name, who.as_bytes().to_vec())).to_vec();
    let (one, other) = (directory(folder.path()), directory(folder.path()));
    for _ in 0..20 {
        let (first, second) = tokio::join!(one.write(set("one")), other.write(set("other")));
        first.unwrap();
        second.unwrap();
        let kept = one.read("a").await.unwrap().unwrap();
        for name in ["b", "c", "d"] {
            assert!(one.read(name).await.unwrap().unwrap() == kept, "mixed");
        }
    }
}

/// As `tbot init` sets it (surface §E.5): owner and one reader.
#[tokio::test]
async fn an_acl_that_an_operator_set_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "").unwrap();
    let everybody = u32::MAX;
    let entries = [(1, 6, everybody), (2, 6, 4242), (4, 0, everybody), (16, 6, everybody), (32, 0, everybody)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend(u16::to_le_bytes(tag));
        acl.extend(u16::to_le_bytes(rights));
        acl.extend(u32::to_le_bytes(id));
    }
    if setxattr(&key, ACL, &acl, XattrFlags::empty()) == Err(rustix::io::Errno::NOTSUP) {
        eprintln!("this file system has no ACLs");
        return;
    }
    let inode = key.metadata().unwrap().ino();
    let destination = directory(folder.path());
    destination.write(vec![file("key", b"one".to_vec()), file("new", vec![])]).await.unwrap();
    let mut kept = vec![0; 1024];
    let length = getxattr(&key, ACL, &mut kept).unwrap();
    assert_eq!(kept[..length], acl);
    assert_ne!(key.metadata().unwrap().ino(), inode, "it could be replaced and was rewritten");
    assert!(getxattr(folder.path().join("new"), ACL, &mut kept).is_err());
    assert_eq!(std::fs::read(&key).unwrap(), b"one");
}

#[tokio::test]
async fn the_owner_that_an_operator_set_is_kept() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a file away");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "").unwrap();
    chown(&key, Some(4242), Some(4343)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o440)).unwrap();
    directory(folder.path()).write(vec![file("key", b"one".to_vec())]).await.unwrap();
    let found = key.metadata().unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (4242, 4343, 0o440));
}

#[tokio::test]
async fn reading_is_bounded_and_what_is_not_in_the_set_stays() {
    let folder = tempfile::tempdir().unwrap();
    let destination = directory(folder.path());
    std::fs::write(folder.path().join("large"), vec![0; (1 << 20) + 1]).unwrap();
    std::fs::write(folder.path().join("just"), vec![0; 1 << 20]).unwrap();
    destination.write(vec![file("key", vec![])]).await.unwrap();
    let refused = destination.read("large").await.unwrap_err();
    assert!(refused.kind == FailureKind::Storage && refused.message.contains("larger than 1048576 bytes"), "{refused}");
    assert_eq!(destination.read("just").await.unwrap().unwrap().len(), 1 << 20);
    assert!(destination.read("../large").await.is_err());
}

#[tokio::test]
async fn a_directory_is_swapped_for_a_symlink_in_vain() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("out");
    let destination = directory(&path);
    destination.prepare().await.unwrap();
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(outside.path(), &path).unwrap();
    assert!(destination.write(vec![file("key", b"secret".to_vec())]).await.is_err());
    assert!(destination.prepare().await.is_err() && destination.lock().await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn memory_keeps_what_was_written() {
    let memory = Memory::default();
    memory.prepare().await.unwrap();
    assert_eq!(memory.read("key").await.unwrap(), None);
    memory.write(vec![file("key", b"one".to_vec()), file("a/b", b"two".to_vec())]).await.unwrap();
    memory.write(vec![file("key", b"three".to_vec())]).await.unwrap();
    assert_eq!(memory.read("key").await.unwrap().unwrap().as_slice(), b"three");
    assert_eq!(memory.read("a/b").await.unwrap().unwrap().as_slice(), b"two");
    assert_eq!(memory.directory(), None);
}
