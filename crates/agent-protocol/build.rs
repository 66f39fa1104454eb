//! Generates messages and ttrpc stubs from `protos/`.

use std::{env, fs, path::PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() {
    println!("cargo:rerun-if-changed=protos");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    Codegen::new()
        .inputs(["agent", "csi", "health", "oci", "types"].map(|name| format!("protos/{name}.proto")))
        .include("protos")
        .out_dir(&out)
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true))
        .customize(Customize { async_all: true, ..Customize::default() })
        .run()
        .expect("the protocol files compile");
    // The generated module list names the messages only.
    let list = out.join("mod.rs");
    let mut text = fs::read_to_string(&list).expect("the generator wrote its module list");
    text.push_str("pub mod agent_ttrpc;\npub mod health_ttrpc;\n");
    fs::write(&list, text).expect("OUT_DIR is writable");
}
