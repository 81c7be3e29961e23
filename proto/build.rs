//! Generates messages, gRPC service and canonical JSON from the `.proto` files, with no `protoc` on the machine.

use prost::Message as _;
use std::path::PathBuf;

const FILES: &[&str] = &[
    "vouch/v1/common.proto",
    "vouch/v1/deployment.proto",
    "vouch/v1/surroundings.proto",
    "vouch/v1/series.proto",
    "vouch/v1/logs.proto",
    "vouch/v1/settings.proto",
    "vouch/v1/budget.proto",
    "vouch/v1/verdict.proto",
    "vouch/v1/evidence.proto",
    "vouch/v1/action.proto",
    "vouch/v1/verifications.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("vouch.v1.bin"), &encoded)?;
    tonic_prost_build::configure()
        .extern_path(".google.protobuf.Timestamp", "crate::WireTimestamp")
        .extern_path(".google.protobuf.Duration", "::pbjson_types::Duration")
        .out_dir(&out)
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new().register_descriptors(&encoded)?.build(&[".vouch.v1"])?;
    Ok(())
}
