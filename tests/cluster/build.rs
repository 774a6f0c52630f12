//! Compiles the agent's own protobuf files again, this time as a server.

use std::{env, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../host/cluster/proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    let set = protox::compile(["auth.proto", "trust.proto", "join.proto", "machineid.proto"], [&folder])?;
    // The tests compare shapes field by field and need the descriptors at run time.
    fs::write(Path::new(&env::var("OUT_DIR")?).join("descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().build_client(true).build_server(true).include_file("wire.rs").compile_fds(set)?;
    Ok(())
}
