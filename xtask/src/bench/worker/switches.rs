//! The probe: connects over and over and says when it first reached another port than before.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use rustix::net::sockopt::set_socket_linger;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, clap::Args)]
pub(in crate::bench) struct Args {
    /// Where to connect to.
    #[arg(long)]
    target: SocketAddr,
}

/// Nanoseconds of the clock that all processes of the machine share.
pub(in crate::bench) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Runs until the process is ended. A line for every change: the port that was reached, 0 for none, and when.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut before = None;
    loop {
        let reached = TcpStream::connect(args.target).and_then(|stream| {
            // Closing resets: nothing is left behind by thousands of connections.
            set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
            Ok(stream.peer_addr()?.port())
        });
        let reached = reached.unwrap_or_default();
        if before != Some(reached) {
            writeln!(out, "{reached} {}", now_ns())?;
            out.flush()?;
            before = Some(reached);
        }
    }
}
