//! The cluster's resolver, as far as the tests need one: see `orlop_integration::dns`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use orlop_integration::dns::FOREIGN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const PORT: u16 = 53;
/// What a datagram holds without EDNS.
const PLAIN: usize = 512;

pub(crate) async fn serve() -> Result<()> {
    let any = (Ipv6Addr::UNSPECIFIED, PORT);
    let (udp, tcp) = (UdpSocket::bind(any).await?, TcpListener::bind(any).await?);
    println!("listening");
    let mut buffer = vec![0; 65_535];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let (length, from) = received?;
                if let Some(answer) = answer(buffer.get(..length).unwrap_or_default(), from, true) {
                    udp.send_to(&answer, from).await?;
                }
            }
            accepted = tcp.accept() => {
                let (stream, from) = accepted?;
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(stream, from).await {
                        eprintln!("{error}");
                    }
                });
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, from: SocketAddr) -> Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = answer(&query, from, false) {
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

fn answer(query: &[u8], from: SocketAddr, datagram: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?;
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.queries.clone_from(&query.queries);
    let data = |ip| RData::A(A(ip));
    let name = question.name().to_ascii();
    let records = match (name.as_str(), question.query_type()) {
        ("silent.test.", _) => return None,
        (_, RecordType::TXT) => vec![RData::TXT(TXT::new(vec![from.ip().to_canonical().to_string()]))],
        ("many.test.", RecordType::A) => (1..=40).map(|last| data(Ipv4Addr::new(192, 0, 2, last))).collect(),
        (name, RecordType::A) if name.ends_with(".ip.test.") => {
            let address = name.trim_end_matches(".ip.test.").replace('-', ".").parse();
            address.into_iter().map(data).collect()
        }
        (name, RecordType::A) if name.ends_with(".test.") => vec![data(FOREIGN)],
        (name, _) if name.ends_with(".test.") => vec![],
        _ => {
            response.metadata.response_code = ResponseCode::NXDomain;
            vec![]
        }
    };
    let record = |data| Record::from_rdata(question.name().clone(), 300, data);
    response.answers = records.into_iter().map(record).collect();
    let bytes = response.to_vec().ok()?;
    let limit = query.edns.as_ref().map_or(PLAIN, |edns| usize::from(edns.max_payload()));
    if datagram && bytes.len() > limit { response.truncate().to_vec().ok() } else { Some(bytes) }
}
