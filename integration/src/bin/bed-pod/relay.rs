//! A path socket is not bound to a network namespace, so a program in a pod reaches the node's loopback through it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use tokio::net::{TcpStream, UnixListener};

pub(crate) async fn serve(socket: &Path, to: SocketAddr) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    println!("listening");
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            let carried = async {
                let mut far = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            };
            if let Err(e) = carried.await {
                eprintln!("{to}: {e}");
            }
        });
    }
}
