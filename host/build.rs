//! Adds the linker scripts: the one that gives the ring-0 entry code pages of its own, and the one that puts what runs at the
//! start of a sandbox together.

fn main() {
    let linker = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../linker");
    let [pages, order] = ["host.ld", "start.ld"].map(|name| linker.join(name));
    println!("cargo::rerun-if-changed={}", pages.display());
    println!("cargo::rustc-link-arg=-Wl,-T,{}", pages.display());
    println!("cargo::rerun-if-changed={}", order.display());
    // Seconds of every link, for what only release builds are asked for.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", order.display());
    }
}
