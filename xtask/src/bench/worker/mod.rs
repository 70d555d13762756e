//! The processes that a benchmark runs inside the pods: the load and the backend. Both are one thread with one epoll
//! instance and raw HTTP/1.1, so that what is measured is what stands between them.
//!
//! They work against any address as well, which makes them the tool for tuning a proxy by hand.

mod backend;
mod load;
mod wire;

pub(super) use load::Report;

/// One of the two.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Worker {
    /// Sends requests in a closed loop and prints what it measured as one line of JSON.
    Load(load::Args),
    /// Answers every request with the same 1 KB.
    Backend(backend::Args),
}

impl Worker {
    /// Runs to its end: the load's last second, or the signal that ends the backend.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Load(args) => {
                println!("{}", serde_json::to_string(&load::run(args)?)?);
                Ok(())
            }
            Self::Backend(args) => backend::run(args),
        }
    }
}
