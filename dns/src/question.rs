//! Reading a query, just as far as is needed to know whether it is the node's to answer.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Who must answer a query.
#[derive(Debug)]
pub(crate) enum Question {
    /// The node might: it asks for an address.
    Address(Box<AddressQuestion>),
    /// Whoever was asked: the node knows no answers of this kind.
    Other,
}

/// A query for the addresses of one name.
#[derive(Debug)]
pub(crate) struct AddressQuestion {
    pub(crate) header: Header,
    pub(crate) query: Query,
    pub(crate) edns: Option<Edns>,
}

/// The bytes are no query: truncated, with a loop in a name, or an answer.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Question {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| Malformed)?;
        if header.metadata.message_type != MessageType::Query {
            return Err(Malformed);
        }
        // Updates, notifications, several questions or none: standard queries of one question are all that clients send to
        // have a name resolved (RFC 9619).
        if header.metadata.op_code != OpCode::Query || header.counts.queries != 1 {
            return Ok(Self::Other);
        }
        let query = Query::read(&mut decoder).map_err(|_| Malformed)?;
        if query.query_class() != DNSClass::IN
            || !matches!(query.query_type(), RecordType::A | RecordType::AAAA)
        {
            return Ok(Self::Other);
        }
        let mut edns = None;
        let counts = header.counts;
        for (count, additional) in
            [(counts.answers, false), (counts.authorities, false), (counts.additionals, true)]
        {
            let read = Message::read_records(&mut decoder, count.into(), additional, OpCode::Query);
            let (_, found, _) = read.map_err(|_| Malformed)?;
            edns = edns.or(found);
        }
        Ok(Self::Address(Box::new(AddressQuestion { header, query, edns })))
    }
}
