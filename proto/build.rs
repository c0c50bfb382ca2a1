//! Compiles the wire format to Rust, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "remora/peers/v1/peers.proto";
    println!("cargo:rerun-if-changed=proto/{file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false) // the node brings its own connections
        .compile_fds(descriptors)?;
    Ok(())
}
