//! Turns the protocol's one source file into code for both of its packages.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

const ROOT: &str = "proto";
const V1: &str = "apiextensions/fn/v1/run_function.proto";
const V1BETA1: &str = "apiextensions/fn/v1beta1/run_function.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);

    // Crossplane keeps v1beta1 as a copy of v1 under another package; so does this build, which leaves
    // nothing to drift apart.
    let v1 = fs::read_to_string(Path::new(ROOT).join(V1))?;
    let derived = out.join("proto").join(V1BETA1);
    fs::create_dir_all(derived.parent().ok_or("the derived file has no folder")?)?;
    fs::write(
        &derived,
        v1.replace("package apiextensions.fn.proto.v1;", "package apiextensions.fn.proto.v1beta1;"),
    )?;

    let descriptors = protox::compile([V1, V1BETA1], [Path::new(ROOT), &out.join("proto")])?;
    fs::write(out.join("run_function.bin"), descriptors.encode_to_vec())?;

    // Sorted maps: the same answer is the same bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
