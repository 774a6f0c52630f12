//! Every limit of a guest, with its unit and its reason. Values, never options.

use std::time::Duration;

/// Linear memory of one store, all its memories together: room for an interpreter's heap, little enough for two hundred outputs.
pub(crate) const MEMORY_BYTES: usize = 64 << 20;
/// Entries in all tables of one store together: an interpreter's function table has under ten thousand.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// Core instances, memories and tables of one component: Python's needs more than thirty-two.
pub(crate) const INSTANCES: usize = 300;
/// A join plugin may wait for a metadata service.
pub(crate) const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// Everything else is pure computation, of microseconds.
pub(crate) const PURE_DEADLINE: Duration = Duration::from_secs(2);
/// How often a running guest is looked at: the delay that a busy guest causes to others on its thread.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// What may cross from guest to host in one call: 32 files of 64 KiB and room.
pub(crate) const RESULT_BYTES: usize = 4 << 20;
/// Log lines of one call.
pub(crate) const LOG_LINES: usize = 200;
/// Bytes of one log line or error message.
pub(crate) const TEXT_BYTES: usize = 1 << 10;
/// A file that an `input` grant names: tokens and small certificates.
pub(crate) const INPUT_BYTES: u64 = 64 << 10;
/// Requests that a guest may have the host perform in one call: the longest conversation with a metadata service has four.
pub(crate) const HTTP_REQUESTS: usize = 8;
/// One request from look-up to the last byte: metadata services answer in milliseconds, a token of a CI system within a second.
pub(crate) const HTTP_TIME: Duration = Duration::from_secs(5);
/// What a request carries, and what an answer may have, headers included: documents and tokens of a few KiB.
pub(crate) const HTTP_BYTES: usize = 64 << 10;
/// Handles of resources in one store, WASI's among them: an interpreter holds some ten.
pub(crate) const HANDLES: usize = 1000;
/// Random bytes that WASI gives at once: interpreters ask for seeds of under 3 KiB.
pub(crate) const RANDOM_BYTES: u64 = 64 << 10;
/// The largest component that is compiled, bytes: an interpreter with its library has 18 MB.
pub const COMPONENT_BYTES: usize = 32 << 20;
