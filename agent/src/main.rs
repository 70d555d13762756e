//! `orlop`: see `orlop --help`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    orlop_agent::cli::Cli::parse().run()
}
