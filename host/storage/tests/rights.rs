//! Owners and access control lists: what `tbot init` prepares, what `readers` get, what a bot honours then.
//!
//! Run by root, the bot, its reader and a stranger are users of their own; run by anybody else, all that runs is the bot.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use identity::{Destination, OutputFile, RelativePath};
use rustix::fs::{Gid, Uid, XattrFlags, getxattr, setxattr};
use storage::{Acls, Directory, Layout, Preparation, Reader, Rules, User};
use zeroize::Zeroizing;

/// Numbers need no account.
const APP: u32 = 4343;
const STRANGER: u32 = 4444;
const FILES: [&str; 4] = ["tlscert", "key", "cockroach/node.crt", "cockroach/node.key"];

fn bot() -> u32 {
    match rustix::process::geteuid().as_raw() {
        0 => 4242,
        me => me,
    }
}

fn set(generation: &str) -> Vec<OutputFile> {
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(generation.as_bytes().to_vec()),
    };
    FILES.map(file).to_vec()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn preparation(owner: Option<(u32, u32)>) -> Preparation {
    let user = |uid: u32| User { name: uid.to_string(), uid, gid: Some(uid) };
    let users = Ok((User { gid: Some(group()), ..user(bot()) }, Some(user(APP))));
    let files = FILES.map(|path| RelativePath::parse(path).unwrap()).to_vec();
    Preparation { owner, users, clean: false, files }
}

/// The bot's primary group.
fn group() -> u32 {
    match rustix::process::geteuid().as_raw() {
        0 => 4242,
        _ => rustix::process::getegid().as_raw(),
    }
}

fn directory(path: &Path) -> Directory {
    Directory::new(path, Rules::default()).unwrap()
}

fn with_readers(path: &Path, acls: Acls, layout: Layout) -> Directory {
    let readers = vec![Reader::User(APP), Reader::Group(7)];
    Directory::new(path, Rules { acls, readers, layout, ..Rules::default() }).unwrap()
}

/// Runs `work` as that user and its group where root runs this; otherwise only what the bot does is run.
fn acting_as(uid: u32, work: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        if uid == bot() {
            work();
        }
        return;
    }
    let body = || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(Gid::from_raw(uid)).unwrap();
        rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
        work();
    };
    std::thread::scope(|scope| scope.spawn(body).join().unwrap());
}

fn write(destination: &Directory, generation: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let written = runtime.block_on(async {
        destination.prepare().await?;
        destination.write(set(generation)).await
    });
    written.map_err(|failure| failure.message)
}

/// As `getfacl --numeric` shows it, one entry a line.
fn acl(path: &Path) -> String {
    let mut bytes = vec![0; 1024];
    let Ok(length) = getxattr(path, "system.posix_acl_access", &mut bytes) else {
        return format!("mode {:o}", path.metadata().unwrap().mode() & 0o777);
    };
    let entry = |entry: &[u8]| {
        let word = ["user", "user", "group", "group", "mask", "other"][entry[0].trailing_zeros() as usize];
        let id = u32::from_le_bytes(entry[4..8].try_into().unwrap());
        let id = if id == u32::MAX { String::new() } else { id.to_string() };
        let rights: String = ["---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx"][usize::from(entry[2])].into();
        format!("{word}:{id}:{rights}\n")
    };
    bytes[4..length].chunks(8).map(entry).collect()
}

fn encode(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// What the original prepared, but that the reader may only read, and that `cockroach/` has its files (surface §E.5).
#[test]
fn init_prepares_what_the_original_did_but_for_its_defects() {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/v15/runs/init/transcript.txt");
    let recorded = std::fs::read_to_string(recorded).unwrap();
    let listing = recorded.split("--- getfacl\n").nth(1).unwrap().split("$ tbot").next().unwrap();
    let folder = folder();
    let out = folder.path().join("out");
    let mut wanted = preparation(Some((bot(), group())));
    let names = ["identity", "teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt"];
    wanted.files.extend(names.map(|name| RelativePath::parse(name).unwrap()));
    directory(&out).initialize(&wanted).unwrap();
    let mut compared = 0;
    for block in listing.trim().split("\n\n") {
        let (header, entries): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with('#'));
        let path = out.join(header[0].trim_start_matches("# file: initd/out").trim_start_matches('/'));
        let text = entries.join("\n") + "\n";
        let text = text.replace("appuser:rw-", "appuser:r--").replace("mask::rw-", "mask::r--");
        assert_eq!(acl(&path), text.replace("appuser", &APP.to_string()), "{}", path.display());
        let found = path.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (bot(), group()));
        compared += 1;
    }
    assert_eq!(compared, 11);
    assert_eq!(acl(&out.join("cockroach/node.key")), acl(&out.join("key")));
}

#[test]
fn what_init_prepared_the_bot_writes_the_reader_reads_and_nobody_else() {
    for layout in [Layout::Plain, Layout::Generations] {
        let folder = folder();
        let out = folder.path().join("out");
        directory(&out).initialize(&preparation(None)).unwrap();
        let (rights, search) = (acl(&out.join("key")), acl(&out));
        assert!(rights.contains(&format!("user:{APP}:r--\n")), "{rights}");
        for generation in ["one", "two"] {
            acting_as(bot(), || {
                let destination = Directory::new(&out, Rules { layout, ..Rules::default() }).unwrap();
                write(&destination, generation).unwrap();
            });
            acting_as(APP, || {
                for file in FILES {
                    assert_eq!(std::fs::read_to_string(out.join(file)).unwrap(), generation);
                    std::fs::OpenOptions::new().write(true).open(out.join(file)).unwrap_err();
                }
                std::fs::write(out.join("new"), "").unwrap_err();
                std::fs::remove_file(out.join("key")).unwrap_err();
            });
            acting_as(STRANGER, || drop(std::fs::read(out.join("key")).unwrap_err()));
            for file in FILES {
                let found = out.join(file).metadata().unwrap();
                assert_eq!(
                    (acl(&out.join(file)), found.uid(), found.gid()),
                    (rights.clone(), bot(), group()),
                    "{file}"
                );
            }
            assert_eq!((acl(&out), acl(&out.join("cockroach"))), (search.clone(), search.clone()));
        }
        // Preparing again finds nothing to do.
        let inode = out.join("key").metadata().unwrap().ino();
        directory(&out).initialize(&preparation(None)).unwrap();
        assert_eq!((out.join("key").metadata().unwrap().ino(), acl(&out.join("key"))), (inode, rights));
        assert_eq!(std::fs::read(out.join("key")).unwrap(), b"two");
    }
}

/// Owner root, as administrators have it who do not want the bot to create files.
#[test]
fn a_bot_that_owns_nothing_rewrites_what_was_prepared_for_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can prepare a directory for another");
        return;
    }
    let folder = folder();
    let out = folder.path().join("out");
    directory(&out).initialize(&preparation(Some((0, 0)))).unwrap();
    let state = || FILES.map(|file| (acl(&out.join(file)), out.join(file).metadata().unwrap().ino()));
    let before = state();
    assert!(before[0].0.contains("user:4242:rw-\nuser:4343:r--\n"), "{}", before[0].0);
    for acls in [Acls::Try, Acls::Required] {
        acting_as(bot(), || {
            write(&Directory::new(&out, Rules { acls, ..Rules::default() }).unwrap(), "one").unwrap();
        });
    }
    acting_as(APP, || assert_eq!(std::fs::read(out.join("cockroach/node.key")).unwrap(), b"one"));
    acting_as(STRANGER, || drop(std::fs::read(out.join("key")).unwrap_err()));
    assert_eq!(state(), before);
    // Somebody opens it to all: where ACLs are required nothing more is written.
    std::fs::set_permissions(out.join("key"), PermissionsExt::from_mode(0o664)).unwrap();
    acting_as(bot(), || {
        let refused = write(&Directory::new(&out, Rules { acls: Acls::Required, ..Rules::default() }).unwrap(), "two");
        let refused = refused.unwrap_err();
        assert!(refused.contains("has unexpected ACLs: `key`") && refused.contains("tbot init"), "{refused}");
        write(&directory(&out), "three").unwrap();
    });
    assert_eq!(std::fs::read(out.join("key")).unwrap(), b"three");
}

#[test]
fn readers_get_their_rights_at_every_write_in_both_layouts() {
    let (file, search) = (
        format!("user::rw-\nuser:{APP}:r--\ngroup::---\ngroup:7:r--\nmask::r--\nother::---\n"),
        format!("user::rwx\nuser:{APP}:r-x\ngroup::---\ngroup:7:r-x\nmask::r-x\nother::---\n"),
    );
    for layout in [Layout::Plain, Layout::Generations] {
        let folder = folder();
        chown(folder.path(), Some(bot()), None).unwrap();
        let out = folder.path().join("out");
        for generation in ["one", "two", "three"] {
            acting_as(bot(), || write(&with_readers(&out, Acls::Required, layout), generation).unwrap());
            for path in FILES {
                assert_eq!(acl(&out.join(path)), file, "{path}");
            }
            let inner = if layout == Layout::Plain { "" } else { "..data/" };
            for path in ["", "cockroach", inner] {
                assert_eq!(acl(&out.join(path)), search, "{path}");
            }
            acting_as(APP, || {
                assert_eq!(std::fs::read_to_string(out.join("cockroach/node.key")).unwrap(), generation);
                std::fs::write(out.join("key"), "").unwrap_err();
            });
            acting_as(STRANGER, || drop(std::fs::read(out.join("key")).unwrap_err()));
            // Somebody takes the rights away, or has more than is right, as after the original's init.
            std::fs::set_permissions(&out, PermissionsExt::from_mode(0o700)).unwrap();
            let wide = encode(&[(1, 6, u32::MAX), (2, 6, APP), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]);
            setxattr(out.join("key"), "system.posix_acl_access", &wide, XattrFlags::empty()).unwrap();
        }
    }
}

#[test]
fn readers_that_cannot_be_served_stop_a_required_write_only() {
    let folder = folder();
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        acting_as(bot(), || {
            let refused = write(&with_readers(folder.path(), Acls::Required, Layout::Plain), "one").unwrap_err();
            assert!(refused.contains("ACLs are not usable") && refused.contains("uid 4242) own it"), "{refused}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
            write(&with_readers(folder.path(), Acls::Try, Layout::Plain), "one").unwrap();
        });
        assert_eq!(acl(&folder.path().join("key")), "mode 600");
    }
    let rules = Rules { acls: Acls::Off, readers: vec![Reader::User(APP)], ..Rules::default() };
    let refused = Directory::new(folder.path(), rules).err().unwrap();
    assert!(refused.message.contains("remove `acls: off`"), "{refused}");
}

/// `setfacl --default` is how an operator says it for files that do not exist yet.
#[test]
fn a_new_file_gets_what_its_directorys_default_acl_gives() {
    for layout in [Layout::Plain, Layout::Generations] {
        let folder = folder();
        let all = u32::MAX;
        let default = encode(&[(1, 7, all), (2, 5, APP), (4, 0, all), (16, 5, all), (32, 5, all)]);
        setxattr(folder.path(), "system.posix_acl_default", &default, XattrFlags::empty()).unwrap();
        let destination = Directory::new(folder.path(), Rules { layout, ..Rules::default() }).unwrap();
        for generation in ["one", "two"] {
            write(&destination, generation).unwrap();
            for path in ["key", "cockroach/node.key"] {
                let wanted = format!("user::rw-\nuser:{APP}:r--\ngroup::---\nmask::r--\nother::---\n");
                assert_eq!(acl(&folder.path().join(path)), wanted, "{path}");
            }
            let search = format!("user::rwx\nuser:{APP}:r-x\ngroup::---\nmask::r-x\nother::---\n");
            assert_eq!(acl(&folder.path().join("cockroach")), search);
        }
    }
}

#[test]
fn without_acls_directories_stay_searchable_and_owners_stay() {
    let folder = folder();
    let out = folder.path().join("out");
    directory(&out).initialize(&preparation(None)).unwrap();
    // The original makes the directory 0600 and root's here.
    let unknown = || Preparation { users: Err("--bot-user must be set".into()), ..preparation(None) };
    directory(&out).initialize(&unknown()).unwrap();
    let found = out.metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777, acl(&out.join("key"))), (bot(), 0o700, "mode 600".into()));
    assert_eq!(acl(&out.join("cockroach")), "mode 700");
    let required = Directory::new(&out, Rules { acls: Acls::Required, ..Rules::default() }).unwrap();
    let refused = required.initialize(&unknown()).unwrap_err();
    assert!(refused.message.contains("--bot-user must be set; ACLs are required"), "{refused}");
    let off = Directory::new(&out, Rules { acls: Acls::Off, ..Rules::default() }).unwrap();
    off.initialize(&preparation(Some((bot(), group())))).unwrap();
    acting_as(bot(), || write(&off, "one").unwrap());
}

#[test]
fn what_does_not_belong_there_goes_only_when_asked_and_only_from_a_prepared_directory() {
    let folder = folder();
    let clean = || Preparation { clean: true, ..preparation(None) };
    std::fs::create_dir_all(folder.path().join("stray/below")).unwrap();
    let refused = directory(folder.path()).initialize(&clean()).unwrap_err();
    assert!(refused.message.contains("is it the right directory?"), "{refused}");
    std::fs::remove_file(folder.path().join("key")).unwrap();
    directory(folder.path()).initialize(&preparation(None)).unwrap();
    assert!(folder.path().join("stray/below").exists());
    directory(folder.path()).initialize(&clean()).unwrap();
    assert!(!folder.path().join("stray").exists() && folder.path().join("cockroach/node.key").exists());
}

/// Root prepares a directory that somebody else can write to: nothing but what is in it changes hands.
#[test]
fn init_follows_no_link_out_of_the_directory() {
    for (hostile, words) in [
        ("symlink", "not a regular file"),
        ("hardlink", "2 names (hard links)"),
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("parent", "cockroach"),
    ] {
        let folder = folder();
        let (out, victim) = (folder.path().join("out"), folder.path().join("victim"));
        std::fs::write(&victim, "precious").unwrap();
        std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o604)).unwrap();
        std::fs::create_dir(&out).unwrap();
        match hostile {
            "symlink" => symlink(&victim, out.join("key")).unwrap(),
            "hardlink" => std::fs::hard_link(&victim, out.join("key")).unwrap(),
            "fifo" => rustix::fs::mkfifoat(rustix::fs::CWD, out.join("key"), rustix::fs::Mode::RUSR).unwrap(),
            "folder" => std::fs::create_dir(out.join("key")).unwrap(),
            _ => symlink(folder.path(), out.join("cockroach")).unwrap(),
        }
        let refused = directory(&out).initialize(&preparation(None)).unwrap_err();
        assert!(refused.message.contains(words), "{hostile}: {refused}");
        let found = victim.metadata().unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!((found.uid(), found.mode() & 0o777), (me, 0o604), "{hostile}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
