//! What a guest may call: the log, the clock, and what manifest and operator grant.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use identity::PrivateKey;
use rustix::fs::OFlags;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, format_err};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use zeroize::Zeroizing;

use crate::bindings::join::tbot::host::{clock, http, input};
use crate::bindings::output::tbot::format::material;
use crate::bindings::output::tbot::host::{log, private_key};
use crate::bindings::output::tbot::types::types;
use crate::grants::Allowed;
use crate::http::perform;
use crate::limits::{HANDLES, HTTP_REQUESTS, INPUT_BYTES, INSTANCES, MEMORY_BYTES, RANDOM_BYTES, TABLE_ELEMENTS};
use crate::log::{Console, Lines};

/// Everything that belongs to one call. Dropped with it.
pub(crate) struct State {
    allowed: Arc<Allowed>,
    requests: usize,
    lines: Arc<Lines>,
    consoles: [Console; 2],
    memory_bytes: usize,
    table_elements: usize,
    pub(crate) out_of_memory: bool,
    wasi: WasiCtx,
    table: ResourceTable,
    private_key: Option<Zeroizing<Vec<u8>>>,
}

impl State {
    pub(crate) fn new(plugin: Arc<str>, allowed: Arc<Allowed>) -> Self {
        let lines = Lines::new(plugin);
        let consoles = [log::Level::Info, log::Level::Warn].map(|level| Console::new(lines.clone(), level));
        let [stdout, stderr] = consoles.clone();
        let wasi = WasiCtx::builder().stdout(stdout).stderr(stderr).max_random_size(RANDOM_BYTES).build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        Self {
            allowed,
            requests: 0,
            lines,
            consoles,
            memory_bytes: 0,
            table_elements: 0,
            out_of_memory: false,
            wasi,
            table,
            private_key: None,
        }
    }

    /// Lets the guest have `key` during this call, where manifest and operator both say so.
    pub(crate) fn reveal(&mut self, key: &PrivateKey) {
        self.private_key = self.allowed.private_key().then(|| Zeroizing::new(key.pkcs8_der().to_vec()));
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.consoles.iter().for_each(Console::finish);
    }
}

/// Counts all memories and all tables of the store together: a component may have hundreds of each.
impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let counted = grown(self.memory_bytes, current, desired, maximum, MEMORY_BYTES);
        self.out_of_memory |= counted.is_err();
        Ok(counted?.map(|bytes| self.memory_bytes = bytes).is_some())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let counted = grown(self.table_elements, current, desired, maximum, TABLE_ELEMENTS);
        self.out_of_memory |= counted.is_err();
        Ok(counted?.map(|elements| self.table_elements = elements).is_some())
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
}

/// The sum after one part grows from `current` to `desired`. `None` past the guest's own maximum, which it may handle; past the limit the
/// call ends.
fn grown(
    sum: usize,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
    limit: usize,
) -> wasmtime::Result<Option<usize>> {
    if maximum.is_some_and(|maximum| desired > maximum) {
        return Ok(None);
    }
    let sum = sum.saturating_add(desired.saturating_sub(current));
    if sum > limit { Err(format_err!("{sum} wanted, {limit} allowed")) } else { Ok(Some(sum)) }
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
        self.lines.write(level, &message);
        Ok(())
    }
}

impl clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
    }

    async fn wait(&mut self, milliseconds: u32) -> wasmtime::Result<()> {
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
        Ok(())
    }
}

fn denied(message: String) -> types::Error {
    types::Error { kind: types::ErrorKind::Denied, message }
}

impl input::Host for State {
    fn environment(&mut self, name: String) -> wasmtime::Result<Result<Option<String>, types::Error>> {
        if let Err(message) = self.allowed.environment(&name) {
            return Ok(Err(denied(message)));
        }
        Ok(match std::env::var(&name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(types::Error {
                kind: types::ErrorKind::InvalidConfig,
                message: format!("environment variable `{name}` is not UTF-8: set it to text"),
            }),
        })
    }

    fn file(&mut self, path: String) -> wasmtime::Result<Result<Vec<u8>, types::Error>> {
        if let Err(message) = self.allowed.file(&path) {
            return Ok(Err(denied(message)));
        }
        let unavailable = |e: std::io::Error| types::Error {
            kind: types::ErrorKind::Unavailable,
            message: format!("file `{path}`: {e}"),
        };
        Ok(read(&path).map_err(unavailable))
    }
}

/// Never waits: a named pipe without a writer would hold the thread, out of reach of the deadline.
fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut contents = Vec::new();
    file.take(INPUT_BYTES + 1).read_to_end(&mut contents)?;
    match contents.len() as u64 > INPUT_BYTES {
        true => Err(std::io::Error::other(format!("larger than {INPUT_BYTES} bytes"))),
        false => Ok(contents),
    }
}

impl http::Host for State {
    async fn send(&mut self, request: http::Request) -> wasmtime::Result<Result<http::Response, types::Error>> {
        self.requests += 1;
        if self.requests > HTTP_REQUESTS {
            return Ok(Err(denied(format!("a call may send at most {HTTP_REQUESTS} requests"))));
        }
        Ok(perform(&self.allowed, request).await)
    }
}

impl private_key::Host for State {
    fn pkcs8_der(&mut self) -> wasmtime::Result<Result<Vec<u8>, types::Error>> {
        let refused =
            "the private key is not revealed to this plugin: use a `private-key` piece, or grant `private_key: reveal`";
        Ok(self.private_key.as_ref().map(|key| key.to_vec()).ok_or_else(|| denied(refused.into())))
    }
}
