//! gRPC for browsers.

use std::net::SocketAddr;

use anyhow::Result;
use orlop_integration::{Call, Service};

use crate::ways::Ways;

const WEB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30)), 8081);
/// A message of three bytes, as it is and in base64.
const MESSAGE: &str = "\0\0\0\0\u{3}abc";
const MESSAGE_IN_BASE64: &str = "AAAAAANhYmM=";

#[test]
fn grpc_web_is_translated_as_by_envoy() -> Result<()> {
    let service = Service::new("grpc-web", "10.96.0.30").grpc_web(WEB.port(), 8080);
    let ways = Ways::with_mesh("", |_, servers| service.clone().endpoint(&servers[0]).yaml())?;
    let ask = |content_type: &str, accept: &str, body: &str| {
        let request = ways.orlop.http(WEB).host(&service.host()).method("POST").body(body);
        let request = request.header("content-type", content_type).header("accept", accept);
        request.header("x-echo-grpc", "5").header("x-echo-bytes", "4").into_call()
    };
    let binary = ask("application/grpc-web+proto", "*/*", MESSAGE);
    ways.compare(&[
        ("binary", binary.clone()),
        ("over HTTP/2", Call { h2: true, ..binary }),
        ("without proto", ask("application/grpc-web", "*/*", MESSAGE)),
        ("with a parameter", ask("application/grpc-web+proto; charset=utf-8", "*/*", MESSAGE)),
        ("text", ask("application/grpc-web-text", "application/grpc-web-text", MESSAGE_IN_BASE64)),
        ("text for binary", ask("application/grpc-web-text+proto", "*/*", MESSAGE_IN_BASE64)),
        ("binary for text", ask("application/grpc-web", "application/grpc-web-text+proto", MESSAGE)),
        ("gRPC itself", ask("application/grpc", "*/*", MESSAGE)),
        ("something else", ask("application/json", "*/*", "{}")),
    ])?;
    for no_base64 in ["AAAAAANhYmM*", "AAAAAANhYmM"] {
        let call = ask("application/grpc-web-text", "*/*", no_base64);
        let reply = ways.orlop.http(WEB).call(call).send()?;
        assert_eq!(reply.header("grpc-status"), Some("13"), "{no_base64}: {reply:?}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/grpc-web+proto"),
            "{no_base64}: {reply:?}"
        );
    }
    Ok(())
}
