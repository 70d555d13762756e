//! Clients that send much that costs them little: their connection ends, somebody counts it, and nobody else notices.

use std::time::Duration;

use anyhow::Result;
use orlop_integration::{Mesh, Service, until};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: &str = "\0\0\0\u{8}";

#[test]
fn floods_end_their_connection_and_are_counted() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    let start = PREFACE.to_owned() + &frame(SETTINGS, 0, 0, "");
    let request = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", &mesh.web.host())]
        .map(|(name, value)| field(name, value))
        .concat();
    let rapid_reset = (0..200).map(stream).fold(start.clone(), |sent, stream| {
        sent + &frame(HEADERS, END_STREAM | END_HEADERS, stream, &request)
            + &frame(RST_STREAM, 0, stream, CANCEL)
    });
    let headers_without_end = (0..200).fold(start + &frame(HEADERS, END_STREAM, 1, &request), |sent, _| {
        sent + &frame(CONTINUATION, 0, 1, &field("x", "1"))
    });
    let counted = || -> Result<u64> {
        let (_, proxy) = mesh.agent.counters(&mesh.client)?;
        Ok(proxy.response_flags.get("DPE").copied().unwrap_or_default())
    };
    for (name, flood) in [("rapid reset", rapid_reset), ("headers without end", headers_without_end)] {
        let before = counted()?;
        let reply = mesh.client.tcp(Mesh::WEB).payload(&flood).raw()?;
        assert!(reply.closed, "{name}: {reply:?}");
        until(name, Duration::from_secs(5), || Ok((counted()? > before).then_some(())))?;
        assert_eq!(mesh.client.http(Mesh::WEB).host(&mesh.web.host()).send()?.status, 200, "after {name}");
    }
    Ok(())
}

/// The streams of a client whose numbers have no byte above 127, so that frames are text.
fn stream(index: u32) -> u32 {
    (index / 64) * 256 + (index % 64) * 2 + 1
}

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &str) -> String {
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
    head.into_iter().map(char::from).collect::<String>() + payload
}

/// A header as a literal that nobody keeps (RFC 7541, 6.2.2).
fn field(name: &str, value: &str) -> String {
    let length = |text: &str| char::from(u8::try_from(text.len()).unwrap_or_default());
    format!("\0{}{name}{}{value}", length(name), length(value))
}
