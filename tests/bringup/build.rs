//! Links bare-metal images with their script.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Without them the image links, and does not boot.
    assert!(
        var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("relocation-model")),
        "RUSTFLAGS in the environment replace the flags in .cargo/config.toml, which bare-metal images need: unset it"
    );
    let arch = var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let crate_dir = var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("{crate_dir}/../../linker/bringup-{arch}.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    if arch == "aarch64" {
        // The target's default is a fixed address. Vtables of the precompiled core lie in read-only sections: `notext`
        // allows relocations there, and boot.S applies them before there are rights.
        for flag in ["-pie", "--no-dynamic-linker", "-znotext"] {
            println!("cargo:rustc-link-arg-bins={flag}");
        }
    }
}
