//! A third party's component: by path and digest, or not at all.

use std::io::Read;
use std::path::{Path, PathBuf};

use identity::{Failure, FailureKind};
use sandbox::{Engine, Grants, Kind};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::{cache, child};

/// The largest file that is looked at: what the sandbox compiles at most.
const COMPONENT_BYTES: u64 = 32 << 20;

/// An entry of `plugins`.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    /// How outputs name it.
    pub name: String,
    /// Its world.
    pub kind: Kind,
    /// Where the component lies.
    pub path: PathBuf,
    /// `sha256:<hex>` of its bytes.
    pub digest: Option<String>,
    /// What the operator lets it do: `environment` and `files`, lists of names.
    pub grants: serde_json::Value,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Granted {
    environment: std::collections::BTreeSet<String>,
    files: std::collections::BTreeSet<String>,
}

/// The machine code of a third party's plugin, from the cache or made now.
pub(crate) async fn compiled(
    plugin: &ThirdParty,
    engine: &Engine,
    private: Option<&Path>,
) -> Result<(Vec<u8>, Grants), Failure> {
    let invalid = |message: String| Failure::new(FailureKind::InvalidConfig, message);
    let granted: Option<Granted> = serde_json::from_value(plugin.grants.clone())
        .map_err(|e| invalid(format!("`grants` can hold `environment` and `files`, lists of names: {e}")))?;
    let granted = granted.unwrap_or_default();
    let grants = Grants { environment: granted.environment, files: granted.files };
    // Read once: what is checked is what is compiled.
    let wasm = read(&plugin.path).map_err(|e| invalid(format!("{}: {e}", plugin.path.display())))?;
    let digest = hex(&Sha256::digest(&wasm));
    match plugin.digest.as_deref() {
        None => {
            return Err(invalid(format!(
                "{} has no `digest`: after you have looked at it, add `digest: sha256:{digest}`",
                plugin.path.display()
            )));
        }
        Some(wanted) if !wanted.eq_ignore_ascii_case(&format!("sha256:{digest}")) => {
            return Err(invalid(format!(
                "{} has the digest `sha256:{digest}`, and the configuration says `{wanted}`: the file is another one than was looked at",
                plugin.path.display()
            )));
        }
        Some(_) => {}
    }
    let place = cache::Place::open(private, &format!("{digest}-{}", engine.fingerprint()))?;
    if let Some(code) = place.load() {
        return Ok((code, grants));
    }
    info!(target: "PLUGIN", plugin = %plugin.name, digest = %digest, "Compiling the plugin.");
    let code = child::compile(&wasm, place.folder()).await?;
    place.store(&code)?;
    Ok((code, grants))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    file.take(COMPONENT_BYTES + 1).read_to_end(&mut wasm)?;
    match wasm.len() as u64 > COMPONENT_BYTES {
        true => Err(std::io::Error::other(format!("larger than {COMPONENT_BYTES} bytes"))),
        false => Ok(wasm),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
