//! The server program. What it does is in the library: `cli` reads the arguments and runs the command that they name.

use std::process::ExitCode;

/// Hundreds of threads take and give back pieces of all sizes for weeks. The C library's allocator keeps ever more
/// between what is in use (docs/PERFORMANCE.md, Soak). SQLite has it too. Its settings: `.cargo/config.toml`.
#[cfg(all(target_os = "linux", not(tsan)))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gooselake::cli::run(std::env::args_os().skip(1))
}
