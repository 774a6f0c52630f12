use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use identity::{Failure, Format, JoinMethod, Material, Output, PrivateKey, RenderedFile};
use sandbox::{Engine, FormatPlugin, Grants, JoinPlugin, Kind, OutputPlugin};

/// A plugin as `cargo xtask plugins` built it.
pub struct Subject {
    /// File name without its extension: `output-identity`, `rust_properties`.
    pub stem: String,
    /// `name` of its manifest.
    pub name: String,
    /// `kind` of its manifest.
    pub kind: Kind,
    /// All keys of its manifest, or of its method's part of it: what it asks for is among them.
    pub manifest: toml::Table,
    /// The component.
    pub wasm: Vec<u8>,
    /// It, running without any grant.
    pub loaded: Loaded,
}

/// A plugin behind its trait.
pub enum Loaded {
    /// A join method.
    Join(Arc<dyn JoinMethod>),
    /// An output.
    Output(Arc<dyn Output>),
    /// A format.
    Format(Arc<dyn Format>),
}

impl Loaded {
    /// The keys that it says it knows.
    pub fn keys(&self) -> &[String] {
        match self {
            Self::Join(join) => &join.description().keys,
            Self::Output(output) => &output.description().keys,
            Self::Format(format) => &format.description().keys,
        }
    }

    /// The files it announces; none for a join method.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn plan(&self, config: &str, directory: Option<&str>) -> Result<Vec<String>, Failure> {
        match self {
            Self::Join(_) => Ok(Vec::new()),
            Self::Output(output) => output.plan(config, directory).await.map(|plan| plan.files),
            Self::Format(format) => format.files(config, directory).await,
        }
    }

    /// The files it makes; none for a join method, which is asked for its proof instead.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn render(
        &self,
        config: &str,
        material: &Material,
        key: &PrivateKey,
    ) -> Result<Vec<RenderedFile>, Failure> {
        match self {
            Self::Join(join) => {
                let attempt = identity::Attempt { token_name: material.cluster.clone(), challenge: None };
                join.prove(config, attempt).await.map(|_| Vec::new())
            }
            Self::Output(output) => output.render(config, material, key).await,
            Self::Format(format) => format.render(config, material, key).await,
        }
    }
}

/// Every plugin in `target/plugins` and `target/plugins-examples`, loaded without any grant.
///
/// # Errors
/// One that cannot be loaded, or where none is built: run `cargo xtask plugins` first.
pub async fn built_plugins() -> Result<Vec<Subject>> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let engine = Engine::new()?;
    let mut subjects = Vec::new();
    for folder in ["plugins", "plugins-examples"] {
        let built = manifests(&target.join(folder)).context("nothing is built: run `cargo xtask plugins`")?;
        ensure!(!built.is_empty(), "no plugin in `target/{folder}`: run `cargo xtask plugins`");
        for manifest in built {
            subjects.extend(load(&engine, &manifest).await.with_context(|| format!("{}", manifest.display()))?);
        }
    }
    Ok(subjects)
}

fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

/// Machine code of the component at `path`, made once for all tests of a program: it takes most of their time.
fn compiled(engine: &Engine, path: &Path, wasm: &[u8]) -> Result<Arc<[u8]>> {
    static MADE: Mutex<BTreeMap<PathBuf, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    // The others wait for it: each would make the same.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(code) = made.get(path) {
        return Ok(code.clone());
    }
    let code: Arc<[u8]> = engine.compile(wasm)?.into();
    made.insert(path.to_owned(), code.clone());
    Ok(code)
}

/// One subject, or one for each of its `methods`.
async fn load(engine: &Engine, path: &Path) -> Result<Vec<Subject>> {
    let manifest: toml::Table = std::fs::read_to_string(path)?.parse()?;
    let text = |key: &str| {
        manifest.get(key).and_then(toml::Value::as_str).map(str::to_owned).with_context(|| format!("no `{key}`"))
    };
    let (name, kind) = (text("name")?, text("kind")?);
    let Some(kind) = [Kind::Join, Kind::Output, Kind::Format].into_iter().find(|known| known.name() == kind) else {
        bail!("kind `{kind}` is none");
    };
    let wasm = std::fs::read(path.with_extension("wasm"))?;
    let compiled = compiled(engine, path, &wasm)?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let mut tables = BTreeMap::from([(name, manifest.clone())]);
    if let Some(methods) = manifest.get("methods").and_then(toml::Value::as_table) {
        let table = |method: &toml::Value| method.as_table().cloned().unwrap_or_default();
        tables = methods.iter().map(|(name, method)| (name.clone(), table(method))).collect();
    }
    let mut subjects = Vec::new();
    for (name, manifest) in tables {
        let plugin = engine.load_own_code(&name, kind, &compiled, Grants::default())?;
        let loaded = match kind {
            Kind::Join => Loaded::Join(Arc::new(JoinPlugin::new(plugin).await?)),
            Kind::Output => Loaded::Output(Arc::new(OutputPlugin::new(plugin).await?)),
            Kind::Format => Loaded::Format(Arc::new(FormatPlugin::new(plugin).await?)),
        };
        subjects.push(Subject { stem: stem.clone(), name, kind, manifest, wasm: wasm.clone(), loaded });
    }
    Ok(subjects)
}
