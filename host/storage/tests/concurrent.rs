//! Eight processes that read key and certificate as fast as they can while sets are switched. What is torn is counted.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use identity::{Destination, OutputFile, RelativePath};
use storage::{Directory, Layout, Rules};
use zeroize::Zeroizing;

const FOLDER: &str = "TBOT_TEST_FOLDER";
const READERS: usize = 8;
/// More of them, for the figures in the README: `TBOT_TEST_RENEWALS=10000`.
const RENEWALS: &str = "TBOT_TEST_RENEWALS";

/// As the base files of every output, in its order; another length every time, so that half a file cannot pass for a whole one.
fn set(generation: u32) -> Vec<OutputFile> {
    let word = format!("{generation:09} ");
    let file = |path: &str| OutputFile {
        path: RelativePath::parse(path).unwrap(),
        contents: Zeroizing::new(word.repeat(200 + generation as usize % 50).into_bytes()),
    };
    ["key-cert.pub", "tlscert", "key", "key.pub", "identity"].map(file).to_vec()
}

/// The generation that a file is of; fails where it is not whole.
fn generation(path: &Path) -> Option<u32> {
    let contents = std::fs::read(path).ok()?;
    let number = std::str::from_utf8(&contents[..9]).unwrap().parse().unwrap();
    assert!(contents == **set(number)[0].contents, "{} is not whole", path.display());
    Some(number)
}

fn read_pairs(place: impl Fn(&Path) -> Option<(PathBuf, Option<std::fs::File>)>) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (mut reads, mut torn) = (0_u64, 0_u64);
    while !folder.join("stop").exists() {
        let Some((inside, _open)) = place(&folder.join("out")) else { continue };
        let (Some(key), Some(certificate)) = (generation(&inside.join("key")), generation(&inside.join("tlscert")))
        else {
            continue;
        };
        reads += 1;
        torn += u64::from(key != certificate);
    }
    println!("\nfigures {reads} {torn}");
}

#[test]
#[ignore = "the body of another process"]
fn reads_by_name() {
    read_pairs(|out| Some((out.to_owned(), None)));
}

/// Opens `..data` once and looks for both below it.
#[test]
#[ignore = "the body of another process"]
fn reads_through_data() {
    read_pairs(|out| {
        let opened = std::fs::File::open(out.join("..data")).ok()?;
        Some((format!("/proc/self/fd/{}", opened.as_raw_fd()).into(), Some(opened)))
    });
}

/// Renews under readers; returns how many pairs they read and how many were torn.
fn torn(layout: Layout, body: &str) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let destination = Directory::new(&folder.path().join("out"), Rules { layout, ..Rules::default() }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let write = |generation| runtime.block_on(destination.write(set(generation))).unwrap();
    runtime.block_on(destination.prepare()).unwrap();
    write(0);
    let reader = |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", body, "--ignored", "--nocapture"]).env(FOLDER, folder.path());
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let readers: Vec<_> = (0..READERS).map(reader).collect();
    let renewals = std::env::var(RENEWALS).map_or(200, |text| text.parse().unwrap());
    (1..=renewals).for_each(write);
    std::fs::write(folder.path().join("stop"), "").unwrap();
    let mut sum = (0, 0);
    for reader in readers {
        let output = reader.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("figures ")).unwrap();
        let (reads, torn) = line.split_once(' ').unwrap();
        sum = (sum.0 + reads.parse::<u64>().unwrap(), sum.1 + torn.parse::<u64>().unwrap());
    }
    println!("{layout:?}, {body}: {renewals} renewals, {} pairs read, {} torn", sum.0, sum.1);
    assert!(sum.0 > 100, "the readers never got to read");
    sum
}

#[test]
fn in_generations_no_pair_is_ever_torn() {
    assert_eq!(torn(Layout::Generations, "reads_through_data").1, 0);
}

/// Pairs may be torn between two renames; a file never is, or its reader fails.
#[test]
fn in_the_plain_layout_every_file_is_whole() {
    torn(Layout::Plain, "reads_by_name");
}
