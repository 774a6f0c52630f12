//! A third party's component: by path and digest, or not at all.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use identity::{Failure, FailureKind};
use rustix::fs::OFlags;
use sandbox::{COMPONENT_BYTES, Engine, Grants, Kind, Rights};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::cache;
use crate::child::{Compiler, compile};

/// An entry of `plugins`.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    /// How outputs name it.
    pub name: String,
    /// Its world.
    pub kind: Kind,
    /// Where the component lies. `None` for a plugin that comes with the program: then the entry is about its grants only.
    pub path: Option<PathBuf>,
    /// `sha256:<hex>` of its bytes.
    pub digest: Option<String>,
    /// What the operator lets it do: `environment`, `files` and `http`, lists of texts, and `private_key: reveal` ([`Rights`]).
    pub grants: serde_json::Value,
}

impl ThirdParty {
    /// What the operator lets it do.
    fn operator(&self) -> Result<Rights, Failure> {
        let operator: Option<Rights> = serde_json::from_value(self.grants.clone()).map_err(|e| {
            invalid(format!(
                "`grants` can hold `environment`, `files` and `http`, lists of texts, and `private_key`: {e}"
            ))
        })?;
        let operator = operator.unwrap_or_default();
        operator.check().map_err(|e| e.context("`grants`"))?;
        Ok(operator)
    }

    /// The same for a plugin that comes with the program, where everything else that it `asks` for is granted already.
    pub(crate) fn private_key_of_bundled(&self, asks: &Rights) -> Result<Rights, Failure> {
        let operator = self.operator()?;
        let key_only = Rights { private_key: operator.private_key, ..Rights::default() };
        if operator != key_only || asks.private_key.is_none() && operator.private_key.is_some() {
            return Err(invalid("it has all that it asks for, but for the private key: remove these `grants`".into()));
        }
        Ok(Rights { private_key: operator.private_key, ..asks.clone() })
    }
}

/// The machine code of a third party's plugin at `path`, from the cache or made now.
pub(crate) async fn compiled(
    plugin: &ThirdParty,
    path: &Path,
    engine: &Engine,
    compiler: &Compiler,
    private: Option<&Path>,
) -> Result<(Vec<u8>, Grants), Failure> {
    let operator = plugin.operator()?;
    let asks = crate::manifest::beside(path, &plugin.name)?;
    if asks.is_none() && operator != Rights::default() {
        let manifest = path.with_extension("toml");
        return Err(invalid(format!(
            "`grants` are only for what the plugin asks for: put its manifest beside it, as {}",
            manifest.display()
        )));
    }
    let grants = Grants { asks: asks.unwrap_or_default(), operator: Some(operator) };
    // Read once: what is checked is what is compiled.
    let wasm = read(path).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
    let digest = hex(&Sha256::digest(&wasm));
    match plugin.digest.as_deref() {
        None => {
            return Err(invalid(format!(
                "{} has no `digest`: after you have looked at it, add `digest: sha256:{digest}`",
                path.display()
            )));
        }
        Some(wanted) if !wanted.eq_ignore_ascii_case(&format!("sha256:{digest}")) => {
            return Err(invalid(format!(
                "{} has the digest `sha256:{digest}`, and the configuration says `{wanted}`: the file is another one than was looked at",
                path.display()
            )));
        }
        Some(_) => {}
    }
    let place = cache::Place::open(private, &format!("{digest}-{}", engine.fingerprint()))?;
    if let Some(code) = place.load() {
        return Ok((code, grants));
    }
    info!(target: "PLUGIN", plugin = %plugin.name, digest = %digest, "Compiling the plugin.");
    let code = compile(compiler, &wasm, place.folder()).await?;
    place.store(&code)?;
    Ok((code, grants))
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::InvalidConfig, message)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    // Opening a named pipe would wait.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    file.take(COMPONENT_BYTES as u64 + 1).read_to_end(&mut wasm)?;
    match wasm.len() > COMPONENT_BYTES {
        true => Err(std::io::Error::other(format!("larger than {COMPONENT_BYTES} bytes"))),
        false => Ok(wasm),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    /// A folder with a component, a private directory, and a compiler that notes down each of its runs.
    struct World {
        folder: tempfile::TempDir,
        wasm: Vec<u8>,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let wasm = wat::parse_str("(component)").unwrap();
            std::fs::write(folder.path().join("plugin.wasm"), &wasm).unwrap();
            std::fs::write(folder.path().join("code"), Engine::new().unwrap().compile(&wasm).unwrap()).unwrap();
            let world = Self { folder, wasm };
            world.compiler_does("cp \"$(dirname \"$0\")/code\" \"$2\"");
            world
        }

        fn compiler_does(&self, what: &str) {
            let script = format!("echo run >> \"$(dirname \"$0\")/runs\"\n{what}\n");
            std::fs::write(self.folder.path().join("compiler"), script).unwrap();
        }

        fn plugin(&self, digest: Option<String>) -> ThirdParty {
            let path = Some(self.folder.path().join("plugin.wasm"));
            ThirdParty { name: "own".into(), kind: Kind::Format, path, digest, grants: serde_json::Value::Null }
        }

        fn digest(&self) -> String {
            format!("sha256:{}", hex(&Sha256::digest(&self.wasm)))
        }

        async fn compiled(&self, plugin: &ThirdParty) -> Result<(Vec<u8>, Grants), Failure> {
            let compiler = Compiler { program: "/bin/sh".into(), first: self.folder.path().join("compiler").into() };
            compiled(plugin, plugin.path.as_deref().unwrap(), &Engine::new().unwrap(), &compiler, Some(&self.private()))
                .await
        }

        fn private(&self) -> PathBuf {
            self.folder.path().join("private")
        }

        fn runs(&self) -> usize {
            std::fs::read_to_string(self.folder.path().join("runs")).map_or(0, |runs| runs.lines().count())
        }

        fn cached(&self) -> Vec<PathBuf> {
            std::fs::read_dir(self.private().join("plugins")).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[tokio::test]
    async fn without_its_digest_nothing_is_compiled() {
        let world = World::new();
        let refused = world.compiled(&world.plugin(None)).await.unwrap_err();
        assert!(refused.message.ends_with(&format!("add `digest: {}`", world.digest())), "{refused}");
        let wrong = format!("sha256:{}", "0".repeat(64));
        let refused = world.compiled(&world.plugin(Some(wrong.clone()))).await.unwrap_err();
        assert!(refused.message.contains(&wrong) && refused.message.contains(&world.digest()), "{refused}");
        assert_eq!(world.runs(), 0);
    }

    #[tokio::test]
    async fn code_is_made_once_and_again_where_it_was_tampered_with() {
        let world = World::new();
        let plugin = world.plugin(Some(world.digest()));
        let (code, _) = world.compiled(&plugin).await.unwrap();
        Engine::new().unwrap().load_own_code("own", Kind::Format, &code, Grants::default()).unwrap();
        assert_eq!(world.compiled(&plugin).await.unwrap().0, code);
        assert_eq!(world.runs(), 1);
        let [file] = world.cached().try_into().expect("one file, and nothing left of compiling");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(world.compiled(&plugin).await.unwrap().0, code);
        assert_eq!(world.runs(), 2);
    }

    /// Each must get what was made of its own component, though both are made at the same time in the same directory.
    #[tokio::test]
    async fn two_that_compile_at_once_do_not_get_each_others_code() {
        let world = World::new();
        world.compiler_does("sleep 0.2; cp \"$1\" \"$2\"");
        let other = wat::parse_str("(component (component))").unwrap();
        let path = world.folder.path().join("other.wasm");
        std::fs::write(&path, &other).unwrap();
        let digest = Some(format!("sha256:{}", hex(&Sha256::digest(&other))));
        let (one, two) = (world.plugin(Some(world.digest())), ThirdParty { path: Some(path), ..world.plugin(digest) });
        let (one, two) = tokio::join!(world.compiled(&one), world.compiled(&two));
        assert!(one.unwrap().0 == world.wasm && two.unwrap().0 == other);
    }

    #[tokio::test]
    async fn a_compiler_that_fails_leaves_its_words_and_no_code() {
        let world = World::new();
        world.compiler_does("echo 'ERROR: this is not a component' >&2; exit 1");
        let refused = world.compiled(&world.plugin(Some(world.digest()))).await.unwrap_err();
        assert_eq!((refused.kind, refused.message.as_str()), (FailureKind::InvalidConfig, "this is not a component"));
        world.compiler_does("echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$");
        let refused = world.compiled(&world.plugin(Some(world.digest()))).await.unwrap_err();
        assert_eq!(refused.message, "it takes more than 2 GiB or 60 s to compile (signal 6): simplify it");
        assert!(world.cached().is_empty());
    }

    #[tokio::test]
    async fn names_of_bundled_plugins_and_unknown_grants_are_refused() {
        let world = World::new();
        let taken = ThirdParty { name: "identity".into(), kind: Kind::Output, ..world.plugin(Some(world.digest())) };
        let greedy = ThirdParty { grants: serde_json::json!({"network": true}), ..world.plugin(Some(world.digest())) };
        let refused = Catalog::load(vec![taken, greedy], Some(&world.private())).await.err().unwrap();
        assert!(refused[0].message.contains("plugin `identity`: this name is taken"), "{}", refused[0]);
        assert!(refused[1].message.contains("unknown field `network`"), "{}", refused[1]);
    }

    #[tokio::test]
    async fn a_plugin_of_another_kind_is_not_called_unknown() {
        let world = World::new();
        let compiled = world.compiled(&world.plugin(Some(world.digest()))).await.unwrap();
        let mut catalog = Catalog::load(vec![], None).await.unwrap();
        catalog.third_party.insert((Kind::Format, "own".into()), compiled);
        let refused = catalog.output("own").await.err().unwrap();
        let words =
            "unrecognized output type (own): `plugins` has it with `kind: format`, and here it must be `kind: output`";
        assert_eq!(refused.message, words);
    }

    #[tokio::test]
    async fn a_bundled_plugin_is_granted_the_key_and_nothing_else() {
        let entry = |name: &str, grants: serde_json::Value| ThirdParty {
            name: name.into(),
            kind: Kind::Format,
            path: None,
            digest: None,
            grants,
        };
        let reveal = serde_json::json!({"private_key": "reveal"});
        let catalog = Catalog::load(vec![entry("pkcs12", reveal.clone())], None).await.unwrap();
        assert!(!catalog.grants(Kind::Format, "pkcs12").unwrap().withhold_the_key());
        assert!(Catalog::load(vec![], None).await.unwrap().grants(Kind::Format, "pkcs12").unwrap().withhold_the_key());
        for (entry, words) in [
            (entry("pkcs12", serde_json::json!({"environment": ["HOME"]})), "all that it asks for"),
            (entry("tls", reveal.clone()), "all that it asks for"),
            (entry("own", reveal.clone()), "add its `path`"),
            (ThirdParty { digest: Some("sha256:0".into()), ..entry("pkcs12", reveal) }, "remove `digest`"),
        ] {
            let refused = Catalog::load(vec![entry], None).await.err().unwrap();
            assert!(refused[0].message.contains(words), "{}", refused[0]);
        }
    }

    #[tokio::test]
    async fn what_is_granted_must_be_asked_for_in_a_manifest_beside() {
        let world = World::new();
        let grants = serde_json::json!({"http": ["https://a.example/"], "environment": ["A", "B"]});
        let plugin = ThirdParty { grants, ..world.plugin(Some(world.digest())) };
        let refused = world.compiled(&plugin).await.unwrap_err();
        assert!(refused.message.ends_with("plugin.toml"), "{refused}");
        let manifest = "name = \"own\"\nkind = \"format\"\nenvironment = [\"A\"]\n";
        std::fs::write(world.folder.path().join("plugin.toml"), manifest).unwrap();
        let (_, grants) = world.compiled(&plugin).await.unwrap();
        assert!(grants.asks.environment.contains("A") && grants.operator.unwrap().environment.contains("B"));
        let wrong = ThirdParty { grants: serde_json::json!({"http": ["nonsense"]}), ..plugin };
        assert!(world.compiled(&wrong).await.unwrap_err().message.starts_with("`grants`: `http` holds"));
    }
}
