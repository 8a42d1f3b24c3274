//! Chooses loom's locks in `src/sync.rs` of the server, for this package alone.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
