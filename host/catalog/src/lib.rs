//! Which plugins there are, from where, pinned to which digest, and with which grants.
//!
//! Bundled plugins are embedded as machine code that the build made; a third party's component is loaded by path *and* digest, compiled
//! once in a process of its own, and kept in the bot's private directory.

mod cache;
mod child;
mod manifest;
mod third_party;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use identity::{Failure, FailureKind, Format, Formats, JOIN_METHODS, JoinMethod, Output};
use sandbox::{Engine, FormatPlugin, JoinPlugin, OutputPlugin, Plugin};
use tokio::sync::Mutex;

pub use child::compile_child;
pub use sandbox::{Grants, Kind, Rights};
pub use third_party::ThirdParty;

/// Kind, name, machine code and manifest.
type Bundled = (Kind, &'static str, &'static [u8], &'static str);

/// Every bundled plugin.
static BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// Names that Teleport's own agent knows: what is missing here is missing, not misspelt.
const KNOWN_OUTPUTS: [&str; 15] = [
    "identity",
    "application",
    "database",
    "kubernetes",
    "kubernetes/v2",
    "kubernetes/argo-cd",
    "ssh_host",
    "application-tunnel",
    "application-proxy",
    "database-tunnel",
    "ssh-multiplexer",
    "workload-identity-x509",
    "workload-identity-jwt",
    "workload-identity-api",
    "workload-identity-aws-roles-anywhere",
];
const KNOWN_FORMATS: [&str; 3] = ["tls", "mongo", "cockroach"];

/// The plugins of one configuration. A plugin is loaded when it is first asked for.
pub struct Catalog {
    engine: Engine,
    third_party: BTreeMap<(Kind, String), (Vec<u8>, Grants)>,
    /// What the operator said of bundled plugins.
    granted: BTreeMap<(Kind, String), Rights>,
    join_methods: Mutex<BTreeMap<String, Arc<dyn JoinMethod>>>,
    outputs: Mutex<BTreeMap<String, Arc<dyn Output>>>,
    formats: Mutex<BTreeMap<String, Arc<dyn Format>>>,
}

impl Catalog {
    /// The bundled plugins and `third_party`, whose digests are checked and which are compiled where `private` does not hold them yet.
    ///
    /// # Errors
    /// One failure for each plugin that is refused.
    pub async fn load(third_party: Vec<ThirdParty>, private: Option<&Path>) -> Result<Self, Vec<Failure>> {
        let engine = Engine::new().map_err(|e| vec![e])?;
        let compiler = child::Compiler::own().map_err(|e| vec![e])?;
        let (mut loaded, mut granted) = (BTreeMap::new(), BTreeMap::new());
        let mut refused = Vec::new();
        for plugin in third_party {
            let key = (plugin.kind, plugin.name.clone());
            let named = |e: Failure| e.context(format_args!("plugin `{}`", plugin.name));
            let bundled = bundled(key.0, &key.1);
            let Some(path) = &plugin.path else {
                match to_bundled(&plugin, bundled) {
                    Ok(rights) => drop(granted.insert(key, rights)),
                    Err(e) => refused.push(named(e)),
                }
                continue;
            };
            if bundled.is_some() || loaded.contains_key(&key) || reserved(plugin.kind).contains(&key.1.as_str()) {
                let message = "this name is taken: choose another";
                refused.push(named(Failure::new(FailureKind::InvalidConfig, message)));
                continue;
            }
            match third_party::compiled(&plugin, path, &engine, &compiler, private).await {
                Ok(compiled) => drop(loaded.insert(key, compiled)),
                Err(e) => refused.push(named(e)),
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let (join_methods, outputs, formats) = Default::default();
        Ok(Self { engine, third_party: loaded, granted, join_methods, outputs, formats })
    }

    /// The join method of that name.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] where there is none, [`FailureKind::Unsupported`] where Teleport has one and this build has not.
    pub async fn join_method(&self, name: &str) -> Result<Arc<dyn JoinMethod>, Failure> {
        let mut loaded = self.join_methods.lock().await;
        if let Some(method) = loaded.get(name) {
            return Ok(method.clone());
        }
        let method: Arc<dyn JoinMethod> = Arc::new(JoinPlugin::new(self.plugin(Kind::Join, name)?).await?);
        loaded.insert(name.to_owned(), method.clone());
        Ok(method)
    }

    /// The output of that name.
    ///
    /// # Errors
    /// As [`Catalog::join_method`].
    pub async fn output(&self, name: &str) -> Result<Arc<dyn Output>, Failure> {
        let mut loaded = self.outputs.lock().await;
        if let Some(output) = loaded.get(name) {
            return Ok(output.clone());
        }
        let output: Arc<dyn Output> = Arc::new(OutputPlugin::new(self.plugin(Kind::Output, name)?).await?);
        loaded.insert(name.to_owned(), output.clone());
        Ok(output)
    }

    /// The names of a kind, bundled ones first.
    pub fn names(&self, kind: Kind) -> Vec<&str> {
        let bundled = BUNDLED.iter().filter(|(of, ..)| *of == kind).map(|(_, name, ..)| *name);
        bundled.chain(self.third_party.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str())).collect()
    }

    /// What the plugin of that name may touch beyond computing and logging: what its manifest asks for, and what the operator grants,
    /// where it is a third party's or an entry of `plugins` names it. Texts are as written; [`sandbox::Rights::filled`] puts values in.
    ///
    /// # Errors
    /// As [`Catalog::join_method`].
    pub fn grants(&self, kind: Kind, name: &str) -> Result<Grants, Failure> {
        if let Some((_, grants)) = self.third_party.get(&(kind, name.to_owned())) {
            return Ok(grants.clone());
        }
        let (.., manifest) = bundled(kind, name).ok_or_else(|| self.unknown(kind, name))?;
        let operator = self.granted.get(&(kind, name.to_owned())).cloned();
        Ok(Grants { asks: manifest::asks(manifest, name)?, operator })
    }

    /// Code comes from `third_party::compiled` (made by this program, or unchanged in the bot's private directory) or from the program itself.
    fn plugin(&self, kind: Kind, name: &str) -> Result<Plugin, Failure> {
        if let Some((compiled, grants)) = self.third_party.get(&(kind, name.to_owned())) {
            return Ok(self.engine.load_own_code(name, kind, compiled, grants.clone())?);
        }
        if let Some((_, _, compiled, _)) = bundled(kind, name) {
            return Ok(self.engine.load_own_code(name, kind, compiled, self.grants(kind, name)?)?);
        }
        Err(self.unknown(kind, name))
    }

    fn unknown(&self, kind: Kind, name: &str) -> Failure {
        if reserved(kind).contains(&name) {
            return Failure::new(FailureKind::Unsupported, format!("`{name}` is not supported yet"));
        }
        let available = self.names(kind);
        let close = available.iter().filter(|known| strsim::damerau_levenshtein(known, name) <= 2).min();
        let declared = self.third_party.keys().find(|(_, other)| other == name);
        let remedy = match (declared, close) {
            (Some((other, _)), _) => {
                format!("`plugins` has it with `kind: {}`, and here it must be `kind: {}`", other.name(), kind.name())
            }
            (None, Some(close)) => format!("did you mean `{close}`?"),
            (None, None) => format!("there are {}, and those that `plugins` names", available.join(", ")),
        };
        // The original's words, which people search for (surface §B.3, §B.6).
        let what = match kind {
            Kind::Join => format!("unrecognized join method: \"{name}\""),
            Kind::Output => format!("unrecognized output type ({name})"),
            Kind::Format => format!("unrecognized format ({name})"),
        };
        Failure::new(FailureKind::InvalidConfig, format!("{what}: {remedy}"))
    }
}

#[async_trait]
impl Formats for Catalog {
    async fn format(&self, name: &str) -> Result<Arc<dyn Format>, Failure> {
        let mut loaded = self.formats.lock().await;
        if let Some(format) = loaded.get(name) {
            return Ok(format.clone());
        }
        let format: Arc<dyn Format> = Arc::new(FormatPlugin::new(self.plugin(Kind::Format, name)?).await?);
        loaded.insert(name.to_owned(), format.clone());
        Ok(format)
    }
}

/// What an entry without a path grants to the bundled plugin of its name.
fn to_bundled(entry: &ThirdParty, bundled: Option<&Bundled>) -> Result<Rights, Failure> {
    let invalid = |message: &str| Failure::new(FailureKind::InvalidConfig, message);
    let (.., manifest) = bundled.ok_or_else(|| invalid("no plugin of this name comes with tbot: add its `path`"))?;
    if entry.digest.is_some() {
        return Err(invalid("it comes with tbot and is what it is: remove `digest`, or add the `path` of your own"));
    }
    entry.private_key_of_bundled(&manifest::asks(manifest, &entry.name)?)
}

fn bundled(kind: Kind, name: &str) -> Option<&'static Bundled> {
    BUNDLED.iter().find(|(of, bundled, ..)| (*of, *bundled) == (kind, name))
}

fn reserved(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Join => &JOIN_METHODS,
        Kind::Output => &KNOWN_OUTPUTS,
        Kind::Format => &KNOWN_FORMATS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bundled_plugins_load_and_unknown_names_say_what_there_is() {
        let catalog = Catalog::load(vec![], None).await.unwrap();
        for kind in [Kind::Join, Kind::Output] {
            assert!(!catalog.names(kind).is_empty());
            for name in catalog.names(kind) {
                match kind {
                    Kind::Join => assert_eq!(catalog.join_method(name).await.unwrap().description().method, name),
                    _ => assert!(!catalog.output(name).await.unwrap().description().keys.is_empty()),
                }
            }
        }
        let refused = catalog.output("aplication").await.err().unwrap();
        assert!(refused.message.ends_with("did you mean `application`?"), "{refused}");
        assert_eq!(catalog.output("kubernetes").await.err().unwrap().message, "`kubernetes` is not supported yet");
        assert_eq!(catalog.join_method("tpm").await.err().unwrap().kind, FailureKind::Unsupported);
        assert_eq!(catalog.format("nonsense").await.err().unwrap().kind, FailureKind::InvalidConfig);
    }
}
