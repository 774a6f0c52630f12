//! Local tunnels: a port or socket of this machine that leads to one application or database behind the cluster (wire §i).
//!
//! Every accepted connection gets one TLS connection to the proxy, with a protocol name that says where to hand it on, and bytes are
//! copied both ways. [`Tunnel::open`] returns once the way is usable, [`Tunnel::serve`] then runs until it is told to end. Certificates come
//! from a destination that something else keeps fresh: a directory for `tbot proxy`, memory inside the daemon.

mod answers;
mod credentials;
mod http;
mod listen;
mod postgres;
mod protocol;
mod refusal;
mod relay;
mod tds;
mod tunnel;
mod way;

pub use credentials::{Credential, Credentials};
pub use listen::Listen;
pub use protocol::Protocol;
pub use tunnel::{Limits, Mode, Settings, Target, Tunnel};
