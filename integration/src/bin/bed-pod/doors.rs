//! Where a server is reached: at every address of both families, by a socket of each.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::select;

const BACKLOG: u32 = 1024;

pub(crate) struct Doors {
    v4: TcpListener,
    v6: TcpListener,
}

impl Doors {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let v6 = TcpSocket::new_v6()?;
        set_ipv6_v6only(&v6, true)?;
        v6.set_reuseaddr(true)?;
        v6.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
        Ok(Self { v4, v6: v6.listen(BACKLOG)? })
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        select! {
            accepted = self.v4.accept() => accepted,
            accepted = self.v6.accept() => accepted,
        }
    }
}
