//! Compiles `definitions/*.proto` into Rust types and into a descriptor set. No `protoc` is needed.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;

const DEFINITIONS: &str = "definitions";
const FILES: [&str; 9] = [
    "alpn.proto",
    "certificate.proto",
    "cri.proto",
    "metadata_exchange.proto",
    "name_table.proto",
    "peer_metadata.proto",
    "proxy_config.proto",
    "stats.proto",
    "typed_struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DEFINITIONS}");
    let compiled = protox::compile(FILES, [DEFINITIONS])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let mut own = FileDescriptorSet {
        file: compiled.file.iter().filter(|file| FILES.contains(&file.name())).cloned().collect(),
    };
    for file in &mut own.file {
        file.source_code_info = None;
    }
    fs::write(out.join("own_descriptors.bin"), own.encode_to_vec())?;

    let mut config = prost_build::Config::new();
    config
        .compile_well_known_types()
        .extern_path(".google.protobuf", "::envoy_types::pb::google::protobuf")
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .btree_map(["."])
        .include_file("types.rs");
    config.compile_fds(compiled)?;
    Ok(())
}
