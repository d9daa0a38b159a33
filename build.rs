//! Compiles the protos: in Rust, so that building needs no protoc.

use std::{env, error::Error, fs, path::Path};

use protox::prost::Message;

const PROTOS: [&str; 2] = ["dept/v1/adapters.proto", "dept/v1/inference.proto"];

#[expect(clippy::disallowed_methods, reason = "a build script is told by variables")]
fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(PROTOS, [&root])?;
    // What server reflection tells.
    fs::write(Path::new(&env::var("OUT_DIR")?).join("dept.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
