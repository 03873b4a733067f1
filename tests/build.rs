//! Links the programs that run *inside* the sandbox where ordinary programs lie: the workspace's own
//! address is taken there, by Pillbox.

/// The binaries under programs/.
const PROGRAMS: &[&str] = &["abi", "fuzz", "hold", "mb", "probe"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let base = match arch.as_str() {
        "x86_64" => "-Wl,--image-base=0x400000",
        _ => "-Wl,-Ttext-segment=0x400000",
    };
    for program in PROGRAMS {
        println!("cargo:rustc-link-arg-bin={program}={base}");
    }
}
