//! A TCP server that says who it is, then echoes.

use anyhow::Result;
use orlop_integration::traffic::Greeting;
use tokio::io::{self, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Server;
use crate::doors::Doors;

pub(crate) async fn serve(server: Server) -> Result<()> {
    let doors = Doors::open(server.port).await?;
    println!("listening");
    loop {
        let (stream, _) = doors.accept().await?;
        let name = server.name.clone();
        tokio::spawn(async move {
            if let Err(e) = echo(stream, name).await {
                eprintln!("{e}");
            }
        });
    }
}

async fn echo(mut stream: TcpStream, server: String) -> Result<()> {
    stream.set_nodelay(true)?;
    let greeting = Greeting { server, peer: stream.peer_addr()?, local: stream.local_addr()? };
    stream.write_all(format!("{}\n", serde_json::to_string(&greeting)?).as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    io::copy(&mut from, &mut to).await?;
    Ok(to.shutdown().await?)
}
