//! Adds the linker script that gives the ring-0 entry code pages of its own.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker/host.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg=-Wl,-T,{}", script.display());
}
