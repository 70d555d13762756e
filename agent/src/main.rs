//! `orlop`: see `orlop --help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// An agent lives for months beside the pods that it serves: what a large push needed for a moment has to go back to the
/// node. jemalloc does that (`.cargo/config.toml` says how soon); glibc's allocator keeps most of it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    orlop_agent::cli::Cli::from_arguments().run()
}
