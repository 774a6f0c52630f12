//! `cargo xtask plugins`: every plugin from source to component to compiled component.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";
/// Longest time for `rustup target add`: it takes 2 s, and where there is no network it may hang instead of failing.
const RUSTUP_TIME: Duration = Duration::from_secs(60);
/// Debian's compiler and the library source of exactly the same release; `lld-19` links where there is no rustup.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "lld-19"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// Builds all plugins into `<root>/target/plugins/<kind>-<name>.{wasm,cwasm,toml}` and the examples into
/// `<root>/target/plugins-examples/<package>.{wasm,toml}`; `release` is the profile of the compiler that makes the `.cwasm`.
/// What is up to date is not made again.
///
/// # Errors
/// What could not be built, or how to install the target `wasm32-unknown-unknown`.
pub fn build(root: &Path, release: bool) -> Result<()> {
    let environment = wasm_toolchain(root)?;
    let ours = plugins_below(&root.join("plugins"), 2)?;
    let out = root.join("target/plugins");
    std::fs::create_dir_all(&out)?;
    compile_to_wasm(root, root, &ours, &environment)?;
    let mut components = Vec::new();
    for plugin in &ours {
        let file = out.join(format!("{}-{}.wasm", plugin.kind, plugin.name));
        componentize(root, plugin, &file)?;
        components.push(file);
    }
    precompile(root, &components, release)?;

    let out = root.join("target/plugins-examples");
    std::fs::create_dir_all(&out)?;
    for example in plugins_below(&root.join("examples/plugins"), 1)? {
        compile_to_wasm(root, &example.folder, std::slice::from_ref(&example), &environment)?;
        componentize(root, &example, &out.join(format!("{}.wasm", example.package.replace('-', "_"))))?;
    }
    Ok(())
}

struct Plugin {
    folder: PathBuf,
    package: String,
    name: String,
    kind: String,
}

/// Every folder `depth` levels down that has a `Cargo.toml` and a `plugin.toml`, sorted.
fn plugins_below(folder: &Path, depth: usize) -> Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    for entry in entries {
        let folder = entry?.path();
        if depth > 1 && folder.is_dir() {
            plugins.extend(plugins_below(&folder, depth - 1)?);
        } else if folder.join("plugin.toml").is_file() && folder.join("Cargo.toml").is_file() {
            let manifest = read_toml(&folder.join("plugin.toml"))?;
            let text = |key: &str| {
                let value = manifest.get(key).and_then(toml::Value::as_str).map(str::to_owned);
                value.with_context(|| format!("`{}/plugin.toml` has no `{key}`", folder.display()))
            };
            let (name, kind) = (text("name")?, text("kind")?);
            let package = read_toml(&folder.join("Cargo.toml"))?;
            let package = package.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
            let package = package.with_context(|| format!("`{}` is no package", folder.display()))?.to_owned();
            plugins.push(Plugin { folder, package, name, kind });
        }
    }
    plugins.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(plugins)
}

fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    text.parse().with_context(|| format!("`{}` is no TOML", path.display()))
}

fn compile_to_wasm(root: &Path, workspace: &Path, plugins: &[Plugin], environment: &Environment) -> Result<()> {
    let mut build = cargo();
    build.current_dir(workspace).args(["build", "--quiet", "--target", TARGET, "--profile", "plugin"]);
    build.arg("--target-dir").arg(wasm_folder(root));
    for plugin in plugins {
        build.args(["--package", &plugin.package]);
    }
    run(build.envs(environment.iter().cloned()))
}

/// Wraps the core module of `plugin` as a component, and puts its manifest beside it.
fn componentize(root: &Path, plugin: &Plugin, file: &Path) -> Result<()> {
    let module = format!("{}.wasm", plugin.package.replace('-', "_"));
    let module = wasm_folder(root).join(TARGET).join("plugin").join(module);
    let module = std::fs::read(&module).with_context(|| format!("cannot read `{}`", module.display()))?;
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    let component = encoder
        .and_then(|mut encoder| encoder.encode())
        .with_context(|| format!("plugin `{}` is no component: does it export its type?", plugin.package))?;
    write_if_changed(file, &component)?;
    write_if_changed(&file.with_extension("toml"), &std::fs::read(plugin.folder.join("plugin.toml"))?)
}

/// Makes `<x>.cwasm` of every `<x>.wasm`. `<x>.made-of` remembers of which component and by which compiler.
fn precompile(root: &Path, components: &[PathBuf], release: bool) -> Result<()> {
    let mut build = cargo();
    build.current_dir(root).args(["build", "--quiet", "--package", "sandbox", "--bin", "precompile"]);
    build.arg("--target-dir").arg(root.join("target"));
    if release {
        build.arg("--release");
    }
    run(&mut build)?;
    let compiler = root.join("target").join(if release { "release" } else { "debug" }).join("precompile");
    let metadata = compiler.metadata().with_context(|| format!("cannot find `{}`", compiler.display()))?;
    for component in components {
        let inputs = format!(
            "{} {} {:?}\n",
            hex(&Sha256::digest(std::fs::read(component)?)),
            metadata.len(),
            metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?
        );
        let (made_of, compiled) = (component.with_extension("made-of"), component.with_extension("cwasm"));
        if compiled.is_file() && std::fs::read_to_string(&made_of).is_ok_and(|before| before == inputs) {
            continue;
        }
        run(Command::new(&compiler).arg(component).arg(&compiled))?;
        std::fs::write(made_of, inputs)?;
    }
    Ok(())
}

type Environment = Vec<(&'static str, OsString)>;

/// What a build for wasm needs in its environment. Takes the first route that works, and says which.
fn wasm_toolchain(root: &Path) -> Result<Environment> {
    if installed()? {
        println!("{TARGET}: installed");
        return Ok(Environment::new());
    }
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").ok();
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET]).args(toolchain.iter().flat_map(|name| ["--toolchain", name]));
    // Its exit status proves nothing: look again.
    if finishes(&mut add, RUSTUP_TIME) && installed()? {
        println!("{TARGET}: added by rustup");
        return Ok(Environment::new());
    }
    if let Some(environment) = debian(root)? {
        println!("{TARGET}: Debian's compiler with a library built of its own source");
        return Ok(environment);
    }
    bail!(
        "there is no `{TARGET}` target\n\
         with network: rustup target add {TARGET}\n\
         on Debian: apt-get update && apt-get install {}, which has to give rustc {} or newer (bookworm-security does)",
        DEBIAN_PACKAGES.join(" "),
        env!("CARGO_PKG_RUST_VERSION")
    )
}

/// `rustc` prints a folder also where the target is absent: what counts is the library in it.
fn installed() -> Result<bool> {
    let folder = output(Command::new(rustc()).args(["--print", "target-libdir", "--target", TARGET]))?;
    let Ok(entries) = std::fs::read_dir(folder.trim()) else { return Ok(false) };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.into_iter().any(|name| name.starts_with("libcore-") && name.ends_with(".rlib")))
}

/// Compiler and library have to be of one release, so rustup's compiler cannot take Debian's source: build Debian's library with Debian's
/// compiler, once, and give it to every later build as its sysroot. `None` where the packages are absent or too old for this project, and
/// cannot be installed.
fn debian(root: &Path) -> Result<Option<Environment>> {
    let there = || {
        Path::new("/usr/lib/rustlib/src/rust/library").is_dir()
            && output(Command::new(DEBIAN_RUSTC).arg("--version")).is_ok_and(|version| is_new_enough(&version))
    };
    if !there() {
        let root_user = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        let apt = |arguments: &[&str]| Command::new("apt-get").args(arguments).status();
        let install =
            [["install", "--yes", "--quiet", "--no-install-recommends"].as_slice(), &DEBIAN_PACKAGES].concat();
        // A new machine has no package lists, and an old one lists what is too old.
        if !root_user || apt(&["update", "--quiet"]).is_err() || apt(&install).is_err() || !there() {
            return Ok(None);
        }
    }
    let version = output(Command::new(DEBIAN_RUSTC).arg("-vV"))?;
    let sysroot = root.join("target/wasm-sysroot").join(&hex(&Sha256::digest(version.as_bytes()))[..16]);
    if !sysroot.is_dir() {
        assemble_sysroot(&sysroot)?;
    }
    let flags = [OsString::from("--sysroot"), sysroot.into_os_string()].join(" ".as_ref());
    Ok(Some(vec![
        ("RUSTC", DEBIAN_RUSTC.into()),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker()?.into_os_string()),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags),
    ]))
}

/// Does `rustc 1.96.0 (…)` build what this workspace's `rust-version` asks for?
fn is_new_enough(version: &str) -> bool {
    let parsed = |text: &str| {
        let mut numbers = text.split('.').map(|part| part.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let found = version.split_whitespace().nth(1).and_then(parsed);
    found.is_some_and(|found| Some(found) >= parsed(env!("CARGO_PKG_RUST_VERSION")))
}

/// Builds the standard library as a dependency of an empty package and moves it to `sysroot` in one step.
fn assemble_sysroot(sysroot: &Path) -> Result<()> {
    let work = sysroot.with_extension("part");
    let _ = std::fs::remove_dir_all(&work);
    let package = work.join("std");
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("src/lib.rs"), "")?;
    let manifest = "[package]\nname = \"stdbuild\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
    std::fs::write(package.join("Cargo.toml"), manifest)?;
    let built = work.join("built");
    let mut build = cargo();
    build.current_dir(&package).args(["build", "--quiet", "-Zbuild-std=std,panic_abort", "--target", TARGET]);
    build.arg("--release").arg("--target-dir").arg(&built);
    build.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC);
    // Without bitcode in the library, link-time optimisation of a plugin fails.
    build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-Cembed-bitcode=yes");
    run(&mut build)?;
    let assembled = work.join("sysroot");
    let library = assembled.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::create_dir_all(&library)?;
    for entry in std::fs::read_dir(built.join(TARGET).join("release/deps"))? {
        let (path, name) = (entry.as_ref().map(|entry| entry.path()), entry.as_ref().map(|entry| entry.file_name()));
        let (Ok(path), Ok(name)) = (path, name) else { continue };
        let name = name.to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libstdbuild-") {
            std::fs::copy(path, library.join(name))?;
        }
    }
    std::fs::rename(assembled, sysroot)?;
    Ok(std::fs::remove_dir_all(work)?)
}

/// rustup's own linker, or Debian's.
fn linker() -> Result<PathBuf> {
    let version = output(Command::new(rustc()).arg("-vV")).unwrap_or_default();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let sysroot = output(Command::new(rustc()).args(["--print", "sysroot"])).unwrap_or_default();
    let ours = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    let found = [ours, DEBIAN_LINKER.into()].into_iter().find(|path| path.is_file());
    found.context("there is no linker for WebAssembly: apt-get install lld-19")
}

fn wasm_folder(root: &Path) -> PathBuf {
    root.join("target/wasm")
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "failed with {status}: {command:?}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "failed with {}: {command:?}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs to its end, or is stopped after `time`; `false` where it cannot be started or is stopped.
fn finishes(command: &mut Command, time: Duration) -> bool {
    let Ok(mut child) = command.stdin(Stdio::null()).spawn() else { return false };
    let end = Instant::now() + time;
    while Instant::now() < end {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn write_if_changed(path: &Path, contents: &[u8]) -> Result<()> {
    if !std::fs::read(path).is_ok_and(|before| before == contents) {
        std::fs::write(path, contents).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_older_than_the_project_is_not_taken() {
        for (version, taken) in [
            (format!("rustc {}.0 (2026)", env!("CARGO_PKG_RUST_VERSION")), true),
            ("rustc 1.100.0-nightly".into(), true),
            ("rustc 2.0.0".into(), true),
            ("rustc 1.63.0".into(), false),
            ("rustc 1.85.0 (4d91de4e4 2025-02-17) (built from a source tarball)".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_new_enough(&version), taken, "{version}");
        }
    }
}
