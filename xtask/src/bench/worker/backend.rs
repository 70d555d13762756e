//! The backend: one thread, one epoll instance, the same 1 KB for every request.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::Context;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::wire;

const LISTENER: Token = Token(usize::MAX);

/// Enough for a request with everything that a proxy adds to it.
const REQUEST_BUFFER: usize = 4096;

#[derive(Debug, clap::Args)]
pub(in crate::bench) struct Args {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
    filled: usize,
    /// Bytes of answers still to be sent, counted from the end of the last one.
    owed: usize,
}

/// Serves until the process is ended.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    serve(TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?)
}

pub(super) fn serve(mut listener: TcpListener) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let answer = wire::response();
    let mut peers = Slab::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut peers)?;
            } else if let Some(peer) = peers.get_mut(event.token().0)
                && peer.serve(&answer).is_err()
            {
                peers.remove(event.token().0);
            }
        }
    }
}

fn accept_all(listener: &TcpListener, poll: &Poll, peers: &mut Slab<Peer>) -> anyhow::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client gave up between its SYN and our accept.
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e).context("cannot accept"),
        };
        let slot = peers.vacant_entry();
        poll.registry().register(&mut stream, Token(slot.key()), Interest::READABLE | Interest::WRITABLE)?;
        slot.insert(Peer { stream, received: vec![0; REQUEST_BUFFER], filled: 0, owed: 0 });
    }
}

impl Peer {
    /// Answers what has arrived. An error means that the connection is over.
    fn serve(&mut self, answer: &[u8]) -> std::io::Result<()> {
        loop {
            self.flush(answer)?;
            let free = self.received.get_mut(self.filled..).unwrap_or_default();
            let capacity = free.len();
            let count = match self.stream.read(free) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            self.filled += count;
            self.owed += self.take_requests()? * answer.len();
            self.flush(answer)?;
            // A short read emptied the socket; the next bytes make a new edge, so no read that would only say so.
            if count < capacity {
                return Ok(());
            }
        }
    }

    /// Removes the complete requests from the buffer and counts them.
    fn take_requests(&mut self) -> std::io::Result<usize> {
        let mut count = 0;
        let mut start = 0;
        while let Some(rest) = self.received.get(start..self.filled)
            && !rest.is_empty()
        {
            let Some(length) = wire::request_length(rest).map_err(|_| ErrorKind::InvalidData)? else { break };
            start += length;
            count += 1;
        }
        self.received.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(count)
    }

    fn flush(&mut self, answer: &[u8]) -> std::io::Result<()> {
        while self.owed > 0 {
            let of_this_one = (self.owed - 1) % answer.len() + 1;
            let rest = answer.get(answer.len() - of_this_one..).unwrap_or_default();
            match self.stream.write(rest) {
                Ok(count) => self.owed -= count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
