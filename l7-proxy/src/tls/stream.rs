//! A connection, in plaintext or in TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::certificate::Certificate;
use crate::listener::PrefixedStream;

/// A connection. Plaintext costs one comparison a call; TLS is behind a pointer, so that plaintext does not carry its size.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Plaintext.
    Plain(TcpStream),
    /// TLS to an endpoint.
    Client(Box<client::TlsStream<TcpStream>>),
    /// TLS of a client, behind the bytes that listener filters read.
    Server(Box<server::TlsStream<PrefixedStream<TcpStream>>>),
}

/// Calls a method of what is inside.
macro_rules! inside {
    ($stream:expr, $io:ident => $call:expr) => {
        match $stream {
            Stream::Plain($io) => $call,
            Stream::Client($io) => {
                let $io = &mut **$io;
                $call
            }
            Stream::Server($io) => {
                let $io = &mut **$io;
                $call
            }
        }
    };
}

impl Stream {
    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Client(tls) => tls.get_ref().0,
            Self::Server(tls) => tls.get_ref().0.io(),
        }
    }

    /// Whether it is not plaintext.
    pub(crate) fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Who the endpoint has shown itself to be; `None` in plaintext, too.
    pub(crate) fn principal_of_endpoint(&self) -> Option<Arc<str>> {
        let Self::Client(tls) = self else { return None };
        let certificate = tls.get_ref().1.peer_certificates()?.first()?;
        Certificate::read(certificate).ok()?.principal
    }

    /// Ready when a read may give something, so that nobody has to hold a buffer before.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_plaintext = match self {
            Self::Plain(_) => false,
            Self::Client(tls) => !tls.get_ref().1.wants_read(),
            Self::Server(tls) => {
                let (io, connection) = tls.get_ref();
                !connection.wants_read() || io.has_prefix()
            }
        };
        if has_plaintext { Poll::Ready(Ok(())) } else { self.tcp().poll_read_ready(cx) }
    }

    /// Whether the peer has neither ended it nor said anything that is waiting to be read.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            // Costs no system call while the reactor has seen nothing.
            Self::Plain(tcp) => {
                matches!(tcp.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // What TLS says for itself, session tickets, is taken on the way.
            tls => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(tls).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        inside!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inside!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
