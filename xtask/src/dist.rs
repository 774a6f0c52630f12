//! `cargo xtask dist`: what is given to users, in one archive.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::programs;

/// What lies in the archive as it lies here.
const COPIED: [&str; 4] = ["LICENSE", "README.md", "examples/configs", "wit"];

/// Packs the release build with its manual pages, completions, examples and the plugin contract.
pub(crate) fn dist(root: &Path) -> Result<()> {
    programs(&[("tar", "tar"), ("gzip", "gzip")])?;
    let tbot = root.join("target/release/tbot");
    let name = format!("tbot-{}-{}-linux", version(&tbot)?, std::env::consts::ARCH);
    let dist = root.join("target/dist");
    let folder = dist.join(&name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let (pages, completions) = (folder.join("man/man1"), folder.join("completions"));
    for made in [&pages, &completions] {
        std::fs::create_dir_all(made)?;
    }
    std::fs::copy(&tbot, folder.join("tbot"))?;
    run(Command::new(&tbot).arg("man-pages").arg(&pages))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = run(Command::new(&tbot).args(["completion", shell]))?;
        std::fs::write(completions.join(format!("tbot.{shell}")), script)?;
    }
    for path in COPIED {
        let target = folder.join(path);
        std::fs::create_dir_all(target.parent().context("no parent")?)?;
        run(Command::new("cp").arg("-R").arg(root.join(path)).arg(target))?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    // The same build gives the same archive, whoever packs it and when.
    let same =
        ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--use-compress-program=gzip -9n"];
    run(Command::new("tar").args(same).arg("-C").arg(&dist).arg("-cf").arg(&archive).arg(&name))?;
    let bytes = std::fs::read(&archive)?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(dist.join("SHA256SUMS"), format!("{digest}  {name}.tar.gz\n"))?;
    println!("packed target/dist/{name}.tar.gz, {} bytes, sha256:{digest}", bytes.len());
    Ok(())
}

/// `0.1.0` out of `tbot v0.1.0 …`.
fn version(tbot: &Path) -> Result<String> {
    let said = String::from_utf8(run(Command::new(tbot).arg("version"))?)?;
    let version = said.split_whitespace().find_map(|word| word.strip_prefix('v'));
    Ok(version.context("`tbot version` tells no version")?.to_owned())
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
