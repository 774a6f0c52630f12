//! Compiles our own protobuf files without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["auth.proto", "trust.proto", "join.proto", "machineid.proto", "transport.proto"];
    for file in files.iter().chain(&["types.proto", "watch.proto"]) {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let set = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_server(false).include_file("wire.rs").compile_fds(set)?;
    Ok(())
}
