//! What a guest may call: the log, the clock, and what manifest and operator grant.

use std::io::Read;
use std::sync::Arc;

use tracing::{debug, error, info, warn};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::join::tbot::host::{clock, http, input};
use crate::bindings::output::tbot::format::material;
use crate::bindings::output::tbot::host::{log, private_key};
use crate::bindings::output::tbot::types::types;
use crate::engine::Grants;
use crate::error::escaped;
use crate::limits::{INPUT_BYTES, INSTANCES, LOG_LINES, MEMORY_BYTES, TABLE_ELEMENTS};

/// Everything that belongs to one call. Dropped with it.
pub(crate) struct State {
    plugin: Arc<str>,
    grants: Arc<Grants>,
    logged: usize,
    limits: StoreLimits,
    pub(crate) out_of_memory: bool,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(crate) fn new(plugin: Arc<str>, grants: Arc<Grants>) -> Self {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES)
            .table_elements(TABLE_ELEMENTS)
            .instances(INSTANCES)
            .memories(INSTANCES)
            .tables(INSTANCES)
            .trap_on_grow_failure(true)
            .build();
        let (wasi, table) = (WasiCtx::builder().build(), ResourceTable::new());
        Self { plugin, grants, logged: 0, limits, out_of_memory: false, wasi, table }
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = self.limits.memory_growing(current, desired, maximum);
        self.out_of_memory |= !matches!(allowed, Ok(true));
        allowed
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = self.limits.table_growing(current, desired, maximum);
        self.out_of_memory |= !matches!(allowed, Ok(true));
        allowed
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for State {}
impl material::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.logged += 1;
        if self.logged == LOG_LINES + 1 {
            warn!(target: "PLUGIN", plugin = %self.plugin, "More than {LOG_LINES} lines in one call, the rest is dropped.");
        }
        if self.logged > LOG_LINES {
            return Ok(());
        }
        let message = escaped(&message);
        match level {
            log::Level::Debug => debug!(target: "PLUGIN", plugin = %self.plugin, "{message}"),
            log::Level::Info => info!(target: "PLUGIN", plugin = %self.plugin, "{message}"),
            log::Level::Warn => warn!(target: "PLUGIN", plugin = %self.plugin, "{message}"),
            log::Level::Error => error!(target: "PLUGIN", plugin = %self.plugin, "{message}"),
        }
        Ok(())
    }
}

impl clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
    }
}

fn denied(message: String) -> types::Error {
    types::Error { kind: types::ErrorKind::Denied, message }
}

impl input::Host for State {
    fn environment(&mut self, name: String) -> wasmtime::Result<Result<Option<String>, types::Error>> {
        if !self.grants.environment.contains(&name) {
            let message =
                format!("environment variable `{}` is not granted: add it to `grants.environment`", escaped(&name));
            return Ok(Err(denied(message)));
        }
        Ok(Ok(std::env::var(&name).ok()))
    }

    fn file(&mut self, path: String) -> wasmtime::Result<Result<Vec<u8>, types::Error>> {
        if !self.grants.files.contains(&path) {
            return Ok(Err(denied(format!("file `{}` is not granted: add it to `grants.files`", escaped(&path)))));
        }
        let mut contents = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(INPUT_BYTES).read_to_end(&mut contents));
        Ok(match read {
            Ok(_) => Ok(contents),
            Err(e) => Err(types::Error { kind: types::ErrorKind::Unavailable, message: format!("file `{path}`: {e}") }),
        })
    }
}

impl http::Host for State {
    fn send(&mut self, request: http::Request) -> wasmtime::Result<Result<http::Response, types::Error>> {
        Ok(Err(denied(format!("no URL is granted to this plugin, not `{}` either", escaped(&request.url)))))
    }
}

impl private_key::Host for State {
    fn pkcs8_der(&mut self) -> wasmtime::Result<Result<Vec<u8>, types::Error>> {
        Ok(Err(denied("the private key is not revealed to this plugin: use a `private-key` piece".into())))
    }
}
