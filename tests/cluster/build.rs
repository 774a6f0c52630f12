//! Compiles the agent's own protobuf files again, this time as a server, and those of what only the original asks.

use std::{env, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders = ["../../host/cluster/proto", "proto"];
    let folders = folders.map(|folder| Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join(folder));
    for folder in &folders {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    let files = [
        "auth.proto",
        "trust.proto",
        "join.proto",
        "machineid.proto",
        "transport.proto",
        "clusterconfig.proto",
        "presence.proto",
    ];
    let set = protox::compile(files, &folders)?;
    // The tests compare shapes field by field and need the descriptors at run time.
    fs::write(Path::new(&env::var("OUT_DIR")?).join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_client(true).build_server(true).include_file("wire.rs").compile_fds(set)?;
    Ok(())
}
