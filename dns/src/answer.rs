//! Writing an answer.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::names::Found;
use crate::question::AddressQuestion;

/// Seconds. As Istio's DNS proxy has it: the table may change any time.
const TTL: u32 = 30;
/// What an answer over UDP may have where the query does not say (RFC 1035 section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;
/// The highest version of EDNS that there is (RFC 6891).
const EDNS_VERSION: u8 = 0;
/// What the node takes itself over UDP, as it tells who tells it.
pub(crate) const OWN_PAYLOAD: u16 = 4096;

/// What carries the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Answers are as long as the client says it takes.
    Udp,
    /// Answers are as long as they are.
    Tcp,
}

/// The answer to a question about a name of the table, in a few tries if it is too long.
pub(crate) fn found(
    question: &AddressQuestion,
    found: &Found<'_>,
    carrier: Carrier,
) -> Result<Vec<u8>, ProtoError> {
    let mut message = response(question);
    message.metadata.authoritative = true;
    if question.edns.as_ref().is_some_and(|edns| edns.version() > EDNS_VERSION) {
        message.metadata.response_code = ResponseCode::BADVERS;
        return message.to_vec();
    }
    let mut records = addresses(question, found)?;
    // No address of the family is no error: the name exists (RFC 2308 section 2.2).
    if !records.is_empty() {
        fastrand::shuffle(&mut records);
        message.answers = alias(question, found)?.into_iter().chain(records).collect();
    }
    let limit = match carrier {
        Carrier::Tcp => usize::from(u16::MAX),
        Carrier::Udp => usize::from(question.edns.as_ref().map_or(PLAIN_PAYLOAD, Edns::max_payload))
            .max(usize::from(PLAIN_PAYLOAD)),
    };
    let mut bytes = message.to_vec()?;
    while bytes.len() > limit && !message.answers.is_empty() {
        // As many as fit: there are clients that do not come again over TCP. All addresses have one length.
        message.metadata.truncation = true;
        let excess = bytes.len() - limit;
        let each = if question.query.query_type() == RecordType::A { 16 } else { 28 };
        let keep = message.answers.len().saturating_sub(excess.div_ceil(each).max(1));
        message.answers.truncate(keep);
        bytes = message.to_vec()?;
    }
    Ok(bytes)
}

/// The answer when whoever was asked does not answer.
pub(crate) fn server_failure(query: &[u8]) -> Option<Vec<u8>> {
    let mut request = Message::from_vec(query).ok()?;
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.metadata.response_code = ResponseCode::ServFail;
    message.metadata.recursion_available = true;
    message.queries = std::mem::take(&mut request.queries);
    message.edns = request.edns.map(|_| own_edns());
    message.to_vec().ok()
}

fn response(question: &AddressQuestion) -> Message {
    let metadata = &question.header.metadata;
    let mut message = Message::response(metadata.id, metadata.op_code);
    message.metadata = Metadata::response_from_request(metadata);
    message.metadata.recursion_available = true;
    message.queries.push(question.query.clone());
    message.edns = question.edns.as_ref().map(|_| own_edns());
    message
}

fn own_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(OWN_PAYLOAD).set_version(EDNS_VERSION);
    edns
}

/// The addresses of the family that was asked for.
fn addresses(question: &AddressQuestion, found: &Found<'_>) -> Result<Vec<Record>, ProtoError> {
    let owner = canonical(question, found)?;
    let data = found.ips.iter().filter_map(|ip| match (ip, question.query.query_type()) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        _ => None,
    });
    Ok(data.map(|data| Record::from_rdata(owner.clone(), TTL, data)).collect())
}

/// Where the search domain was taken off, the name with it is an alias: the client stops searching.
fn alias(question: &AddressQuestion, found: &Found<'_>) -> Result<Option<Record>, ProtoError> {
    if found.own_labels.is_none() {
        return Ok(None);
    }
    let target = RData::CNAME(CNAME(canonical(question, found)?));
    Ok(Some(Record::from_rdata(question.query.name().clone(), TTL, target)))
}

/// The name that the addresses belong to, spelt as in the question.
fn canonical(question: &AddressQuestion, found: &Found<'_>) -> Result<Name, ProtoError> {
    let name = question.query.name();
    match found.own_labels {
        None => Ok(name.clone()),
        Some(labels) => Name::from_labels(name.iter().take(labels)),
    }
}
