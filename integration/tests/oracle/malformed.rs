//! Requests that are none.

use anyhow::Result;
use orlop_integration::{Mesh, Pod};
use serde_json::json;

use crate::ways::{Ways, assert_none};

#[test]
fn malformed_requests_get_the_status_that_envoy_gives() -> Result<()> {
    let ways = Ways::open(|web| {
        json!([
            {"match": [{"uri": {"prefix": "/v2"}}], "route": [web.subset("v2")]},
            {"route": [web.subset("v1")]},
        ])
    })?;
    let host = ways.web.host();
    let long = "a".repeat(70_000);
    let mut differences = Vec::new();
    for (name, request) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("no HTTP/1 version", format!("GET / HTTP/3.7\r\nhost: {host}\r\n\r\n")),
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ),
        (
            "length and chunked",
            format!(
                "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "unknown transfer coding",
            format!("POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: bogus\r\n\r\n"),
        ),
        ("length is no number", format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: x\r\n\r\n")),
        ("blank in a header name", format!("GET / HTTP/1.1\r\nhost: {host}\r\nbad name: 1\r\n\r\n")),
        ("header without a colon", format!("GET / HTTP/1.1\r\nhost: {host}\r\nbad\r\n\r\n")),
        ("header too large", format!("GET / HTTP/1.1\r\nhost: {host}\r\nx-long: {long}\r\n\r\n")),
        (
            "bad chunk",
            format!("POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n"),
        ),
        ("no path", format!("GET  HTTP/1.1\r\nhost: {host}\r\n\r\n")),
    ] {
        let status = |pod: &Pod| {
            let reply = pod.tcp(Mesh::WEB).payload(&request).raw()?;
            let status = reply.body.split(' ').nth(1).unwrap_or("closed").to_owned();
            Ok::<_, anyhow::Error>(status)
        };
        let (by_orlop, by_envoy) = (status(&ways.orlop)?, status(&ways.envoy)?);
        if by_orlop != by_envoy {
            differences.push(format!("{name}: Orlop {by_orlop}, Envoy {by_envoy}"));
        }
    }
    assert_none(&differences);
    Ok(())
}
