//! What a plugin of `tbot` is written with: one trait to implement, one macro to export it, and plain Rust in between.
//!
//! A plugin is a WebAssembly component behind one of three worlds, and with them one of three traits:
//! * [`Output`]: which certificate to ask the cluster for, and which files to make of it,
//! * [`Format`]: how additional files look (what most third parties want),
//! * [`Join`]: how a machine proves who it is.
//!
//! It never holds the private key: a file is a list of [`Piece`]s, and one kind of piece is "the private key, in this encoding".
//! Nothing of a plugin depends on WebAssembly until it is exported, so its tests are ordinary `cargo test`s: see [`testing`].
//!
//! ```
//! use tbot_sdk::{Error, File, Format, KeyEncoding, Material, Piece};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     #[serde(default)]
//!     stem: String,
//! }
//!
//! struct Bundle;
//!
//! impl Format for Bundle {
//!     type Config = Config;
//!     const KEYS: &'static [&'static str] = &["stem"];
//!
//!     fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
//!         match config.stem.as_str() {
//!             "" => Err(Error::invalid_config("`stem` must not be empty: write a file name without its extension")),
//!             stem => Ok(vec![format!("{stem}.pem")]),
//!         }
//!     }
//!
//!     fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
//!         let key = Piece::PrivateKey(KeyEncoding::Pkcs8Pem);
//!         Ok(vec![File::of(format!("{}.pem", config.stem), [key, Piece::text(material.certificate()?)])])
//!     }
//! }
//!
//! tbot_sdk::export_format!(Bundle);
//! ```

// wit-bindgen’s output names this crate as its users do.
extern crate self as tbot_sdk;

mod base;
#[allow(unsafe_code, missing_docs, clippy::all)]
#[doc(hidden)]
pub mod bindings;
mod ca_cert_type;
mod config;
mod error;
mod file;
mod file_name;
mod format;
pub mod host;
mod join;
pub mod log;
mod loose;
#[cfg(not(target_arch = "wasm32"))]
mod machine;
mod material;
mod output;
mod ssh_config;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod text;

pub use base::BaseNames;
pub use bindings::join::exports::tbot::join::method::{Attempt, AzureProof, Opening, Proof};
pub use bindings::output::exports::tbot::output::output::{
    Database, FormatUse, Identity as IdentityTarget, Request, Target,
};
pub use bindings::output::tbot::format::material::{Authority, Cluster, File, KeyEncoding, Material, Piece};
pub use bindings::output::tbot::types::types::{Error, ErrorKind};
pub use ca_cert_type::CaCertType;
pub use config::FormatOption;
pub use file_name::FileName;
pub use format::Format;
pub use join::{Join, Method};
pub use output::Output;
pub use ssh_config::{SshConfigStyle, proxy, ssh_config};

#[doc(hidden)]
pub use format::FormatGuest;
#[doc(hidden)]
pub use join::JoinGuest;
#[doc(hidden)]
pub use output::OutputGuest;
#[doc(hidden)]
pub use wit_bindgen;
