//! A client of DNS.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};
use orlop_integration::dns::{Answer, Over, Question};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

pub(crate) async fn ask(question: &Question) -> Answer {
    let limit = Duration::from_millis(question.timeout_ms);
    match tokio::time::timeout(limit, try_ask(question)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer { error: Some(format!("{error:#}")), ..Answer::default() },
        Err(_) => Answer { error: Some("timed out".to_owned()), ..Answer::default() },
    }
}

async fn try_ask(question: &Question) -> Result<Answer> {
    let mut query = Message::query();
    let name = Name::from_str(&format!("{}.", question.name))?;
    query.add_query(Query::query(name, RecordType::from_str(&question.kind)?));
    query.metadata.recursion_desired = true;
    if let Some(payload) = question.payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        query.set_edns(edns);
    }
    let bytes = question.bytes.clone().map_or_else(|| query.to_vec(), Ok)?;
    let (from, local, answer) = match question.over {
        Over::ConnectedUdp => connected(question.to, &bytes).await?,
        Over::UnconnectedUdp => unconnected(question.to, &bytes).await?,
        Over::Tcp => tcp(question.to, &bytes).await?,
    };
    let message = Message::from_vec(&answer).context("the answer cannot be read")?;
    ensure!(message.metadata.id == query.metadata.id, "another question's answer");
    ensure!(message.queries == query.queries, "the answer to {:?}", message.queries);
    let records = message.answers.iter();
    Ok(Answer {
        error: None,
        from: Some(from),
        local: Some(local),
        code: message.metadata.response_code.to_string(),
        authoritative: message.metadata.authoritative,
        truncated: message.metadata.truncation,
        edns: message.edns.is_some(),
        records: records.map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect(),
        length: answer.len(),
    })
}

async fn bind(to: SocketAddr) -> Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    Ok(UdpSocket::bind(any).await?)
}

async fn connected(to: SocketAddr, query: &[u8]) -> Result<(SocketAddr, SocketAddr, Vec<u8>)> {
    let socket = bind(to).await?;
    socket.connect(to).await.context("connect")?;
    socket.send(query).await.context("send")?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).await.context("receive")?;
    answer.truncate(length);
    Ok((socket.peer_addr()?, socket.local_addr()?, answer))
}

async fn unconnected(to: SocketAddr, query: &[u8]) -> Result<(SocketAddr, SocketAddr, Vec<u8>)> {
    let socket = bind(to).await?;
    socket.send_to(query, to).await.context("send")?;
    let mut answer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut answer).await.context("receive")?;
    answer.truncate(length);
    Ok((from, socket.local_addr()?, answer))
}

async fn tcp(to: SocketAddr, query: &[u8]) -> Result<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut stream = TcpStream::connect(to).await.context("connect")?;
    stream.write_u16(u16::try_from(query.len())?).await?;
    stream.write_all(query).await?;
    let length = stream.read_u16().await.context("receive")?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.context("receive")?;
    Ok((stream.peer_addr()?, stream.local_addr()?, answer))
}
