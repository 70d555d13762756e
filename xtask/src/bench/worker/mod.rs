//! The processes that a benchmark runs inside the pods: the load, the backend and the probe. The first two are one thread with
//! one epoll instance and raw HTTP/1.1, so that what is measured is what stands between them.
//!
//! They work against any address as well, which makes them the tool for tuning a proxy by hand.

mod backend;
mod load;
mod switches;
mod wire;

pub(super) use load::Report;
pub(super) use switches::now_ns;

/// One of them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Worker {
    /// Sends requests in a closed loop and prints what it measured as one line of JSON.
    Load(load::Args),
    /// Answers every request with the same 1 KB.
    Backend(backend::Args),
    /// Connects over and over and prints when it reaches another port than before.
    Switches(switches::Args),
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
            Self::Switches(args) => switches::run(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::SocketAddr;

    use clap::Parser;

    use super::{backend, load};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: load::Args,
    }

    /// Runs the load against `target` with these flags.
    fn load(target: SocketAddr, flags: &[&str]) -> anyhow::Result<load::Report> {
        let target = target.to_string();
        let brief = ["load", "--warm-up", "0", "--seconds", "0.2", "--connections", "4", "--target", &target];
        load::run(&Cli::try_parse_from(brief.iter().chain(flags))?.load)
    }

    fn backend() -> SocketAddr {
        let listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(|| backend::serve(listener));
        address
    }

    #[test]
    fn every_answer_of_the_backend_is_right() {
        let report = load(backend(), &[]).unwrap();
        assert!(report.rps > 0.0);
        assert_eq!((report.failed, report.first_failure), (0, None));
    }

    #[test]
    fn every_answer_on_a_connection_of_its_own_is_right() {
        let report = load(backend(), &["--churn"]).unwrap();
        assert!(report.rps > 0.0);
        assert_eq!((report.failed, report.first_failure), (0, None));
    }

    #[test]
    fn a_server_that_answers_something_else_is_not_measured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream
                    .and_then(|mut stream| stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
            }
        });
        let error = load(address, &[]).unwrap_err().to_string();
        assert!(
            error.contains("no content-length of 1024") || error.contains("closed by the peer"),
            "{error}"
        );
    }
}
