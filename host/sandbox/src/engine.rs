//! Components in, plugins that may run out.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use identity::{Failure, FailureKind};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Config, Store};

use crate::bindings::{join, output};
use crate::call::ticks;
use crate::error::{CallError, escaped};
use crate::grants::{Allowed, Grants};
use crate::host::State;
use crate::limits::{COMPONENT_BYTES, HANDLES, RESULT_BYTES, TICK};

/// What a plugin is for: the world that it targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `tbot:join/join-plugin`.
    Join,
    /// `tbot:output/output-plugin`.
    Output,
    /// `tbot:format/format-plugin`.
    Format,
}

impl Kind {
    /// As configuration and manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Output => "output",
            Self::Format => "format",
        }
    }

    /// As in a sentence.
    pub(crate) fn with_article(self) -> &'static str {
        match self {
            Self::Join => "a join",
            Self::Output => "an output",
            Self::Format => "a format",
        }
    }

    /// The interface that the world exports.
    fn export(self) -> &'static str {
        match self {
            Self::Join => "tbot:join/method@0.1.0",
            Self::Output => "tbot:output/output@0.1.0",
            Self::Format => "tbot:format/format@0.1.0",
        }
    }

    /// Why a component is not of this kind, where another interface that it exports tells.
    fn mistaken_for(self, export: &str) -> Option<String> {
        let interface = |name: &'_ str| name.split('@').next().map(str::to_owned);
        if export == self.export() {
            return None;
        }
        if interface(export) == interface(self.export()) {
            let wanted = self.export();
            return Some(format!(
                "it exports `{}`, and this program knows `{wanted}`: build it against that version of the WIT",
                escaped(export)
            ));
        }
        let other = [Self::Join, Self::Output, Self::Format].into_iter().find(|kind| kind.export() == export)?;
        Some(format!("it is {} plugin: set `kind: {}`", other.with_article(), other.name()))
    }

    /// The interfaces that the world imports. WASI 0.2 is linked with an empty context and always allowed.
    fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Join => &[
                "tbot:types/types@0.1.0",
                "tbot:host/log@0.1.0",
                "tbot:host/clock@0.1.0",
                "tbot:host/input@0.1.0",
                "tbot:host/http@0.1.0",
            ],
            Self::Output => &[
                "tbot:types/types@0.1.0",
                "tbot:host/log@0.1.0",
                "tbot:host/private-key@0.1.0",
                "tbot:format/material@0.1.0",
            ],
            Self::Format => &[
                "tbot:types/types@0.1.0",
                "tbot:host/log@0.1.0",
                "tbot:host/input@0.1.0",
                "tbot:host/private-key@0.1.0",
                "tbot:format/material@0.1.0",
            ],
        }
    }
}

/// The WebAssembly engine: one for the process.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Arc<Linker<State>>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// # Errors
    /// [`FailureKind::Internal`] where this machine cannot run compiled code.
    pub fn new() -> Result<Self, Failure> {
        let internal = |e: wasmtime::Error| {
            Failure::new(FailureKind::Internal, format!("the plugin engine cannot be started: {e}"))
        };
        let engine = wasmtime::Engine::new(&settings()).map_err(internal)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(internal)?;
        output::OutputPlugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(internal)?;
        for add in [
            join::tbot::host::clock::add_to_linker::<State, HasSelf<State>>,
            join::tbot::host::input::add_to_linker::<State, HasSelf<State>>,
            join::tbot::host::http::add_to_linker::<State, HasSelf<State>>,
        ] {
            add(&mut linker, |state| state).map_err(internal)?;
        }
        let ticker = Ticker::start(&engine).map_err(|e| Failure::new(FailureKind::Internal, e.to_string()))?;
        Ok(Self { engine, linker: Arc::new(linker), ticker })
    }

    /// Compiles a component to machine code for [`Engine::load`]. Takes seconds and hundreds of MiB for a large one, without a budget:
    /// only in a process of its own.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] for what is not a component, or too large a one.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, Failure> {
        let refuse = |reason: String| Err(Failure::new(FailureKind::InvalidConfig, reason));
        if wasm.len() > COMPONENT_BYTES {
            return refuse(format!("the component has {} bytes, at most {COMPONENT_BYTES} are allowed", wasm.len()));
        }
        // Layer 1, version 0x0d: what tells a component from a core module.
        if !wasm.starts_with(b"\0asm\x0d\0\x01\0") {
            let remedy = match wasm {
                [b'\x7f', b'E', b'L', b'F', ..] => {
                    "machine code is not accepted, name the component that it was made of"
                }
                [b'\0', b'a', b's', b'm', ..] => "wrap the core module into one with `wasm-tools component new`",
                _ => "name the `.wasm` file that the plugin's build made",
            };
            return refuse(format!("this is not a WebAssembly component: {remedy}"));
        }
        // With a target named, nothing is taken from this machine's processor: the code runs on every one of the architecture.
        let mut portable = settings();
        portable
            .target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
            .and_then(|portable| wasmtime::Engine::new(portable))
            .and_then(|compiler| compiler.precompile_component(wasm))
            .or_else(|e| refuse(format!("the component cannot be compiled: {}", escaped(&e.root_cause().to_string()))))
    }

    /// Identifies engine version and settings: compiled code fits exactly this engine.
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// Loads code that [`Engine::compile`] made, and checks that it imports nothing but its world and WASI.
    ///
    /// The caller vouches for `own_code`: it is machine code and it is run, so it must be what this program made, unchanged, from the
    /// program itself or from a place that nobody else can write. Never code from a configuration.
    ///
    /// # Errors
    /// [`CallError::BadResult`] where it was made by another engine, [`CallError::RefusedCapability`] for other imports.
    #[allow(unsafe_code)]
    pub fn load_own_code(&self, name: &str, kind: Kind, own_code: &[u8], grants: Grants) -> Result<Plugin, CallError> {
        let bad = |e: wasmtime::Error, remedy: &str| CallError::BadResult {
            plugin: name.to_owned(),
            reason: format!("{}: {remedy}", escaped(&format!("{e:#}"))),
        };
        // SAFETY: `own_code` was made by this program's own compiler and nobody else could change it: the contract above.
        let component = unsafe { Component::deserialize(&self.engine, own_code) }
            .map_err(|e| bad(e, "it was compiled by another program, build both together"))?;
        let ty = component.component_type();
        let exports: Vec<_> = ty.exports(&self.engine).map(|(export, _)| export).collect();
        if !exports.contains(&kind.export())
            && let Some(reason) = exports.iter().find_map(|export| kind.mistaken_for(export))
        {
            return Err(CallError::BadResult { plugin: name.to_owned(), reason });
        }
        for (import, _) in ty.imports(&self.engine) {
            if !import.starts_with("wasi:") && !kind.imports().contains(&import) {
                let import = escaped(import);
                return Err(CallError::RefusedCapability {
                    plugin: name.to_owned(),
                    import,
                    kind: kind.with_article(),
                });
            }
        }
        let pre = self.linker.instantiate_pre(&component).map_err(|e| bad(e, "build it against the published WIT"))?;
        Ok(Plugin { name: name.into(), pre, engine: self.clone(), grants: Arc::new(grants), allowed: Arc::default() })
    }
}

/// What code is compiled for and run with: it fits no other.
fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).concurrency_support(false).wasm_backtrace_max_frames(None);
    // Where in the source a trap was is for nobody here to read, and takes a quarter of the code's size.
    config.generate_address_map(false).native_unwind_info(false);
    config
}

/// A plugin that may run. Holds no state of a guest: each call begins with none.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) name: Arc<str>,
    pub(crate) pre: InstancePre<State>,
    engine: Engine,
    grants: Arc<Grants>,
    allowed: Arc<Allowed>,
}

impl Plugin {
    /// The same with its rights, for a call with this configuration (JSON). Without it a guest can do nothing but compute.
    pub(crate) fn granted(&self, config: &str) -> Self {
        Self { allowed: Arc::new(self.grants.for_call(config)), ..self.clone() }
    }

    pub(crate) fn store(&self) -> Store<State> {
        let mut store = Store::new(&self.engine.engine, State::new(self.name.clone(), self.allowed.clone()));
        store.limiter(|state| state);
        store.set_hostcall_fuel(RESULT_BYTES);
        store.set_max_component_handles(HANDLES);
        store
    }

    pub(crate) fn running(&self) -> Running {
        self.engine.ticker.clone().run()
    }
}

/// Moves the epoch on, and only while a call is in flight: an idle agent does not wake up.
pub(crate) struct Ticker {
    running: Mutex<usize>,
    started: Condvar,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self { running: Mutex::new(0), started: Condvar::new() });
        let (weak_ticker, engine) = (Arc::downgrade(&ticker), engine.weak());
        std::thread::Builder::new().name("plugin ticker".into()).stack_size(64 << 10).spawn(move || {
            while let (Some(ticker), Some(engine)) = (weak_ticker.upgrade(), engine.upgrade()) {
                let running = ticker.running.lock().unwrap_or_else(PoisonError::into_inner);
                // Looks up once a minute whether the engine is gone.
                let idle = ticker.started.wait_timeout_while(running, TICK * 6000, |running| *running == 0);
                drop(idle);
                drop(ticker);
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(ticker)
    }

    fn run(self: Arc<Self>) -> Running {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.started.notify_one();
        Running(self)
    }
}

/// A call in flight.
pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

const _: () = assert!(ticks(crate::limits::PURE_DEADLINE) > 1);
