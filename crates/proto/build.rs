//! Compiles /proto: messages, clients, servers, and the descriptors that reflection and JSON output need.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use protox::prost::Message as _;

/// Messages that hold keys or tokens; their `Debug` is written by hand in `src/redact.rs`.
const SECRET: &[&str] = &[
    ".JWTSVID",
    ".ValidateJWTSVIDRequest",
    ".WITSVID",
    ".X509SVID",
    ".spire.api.agent.delegatedidentity.v1.X509SVIDWithKey",
    ".spire.api.server.agent.v1.CreateJoinTokenRequest",
    ".spire.api.types.AttestationData",
    ".spire.api.types.JWTSVID",
    ".spire.api.types.JoinToken",
    ".spire.api.types.WITSVID",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let root = manifest_dir.join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true);
    for file in proto_files(&root)? {
        compiler.open_file(file)?;
    }
    let mut files = compiler.file_descriptor_set();

    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        // Ordered maps, so that equal messages are equal bytes.
        .btree_map(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .skip_debug(SECRET);
    tonic_prost_build::configure()
        .build_transport(false)
        .generate_default_stubs(true)
        .compile_fds_with_config(files.clone(), config)?;

    for file in &mut files.file {
        file.source_code_info = None;
    }
    let out_dir = PathBuf::from(var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), files.encode_to_vec())?;
    Ok(())
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(proto_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    // A folder's order is the file system's; the output must not depend on it.
    found.sort();
    Ok(found)
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to a build script through the environment"
)]
fn var(name: &str) -> Result<String, env::VarError> {
    env::var(name)
}
