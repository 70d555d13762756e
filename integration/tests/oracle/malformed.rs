//! Requests that are none, or might be two: what is answered, what reaches the server, and whether the connection goes on.

use anyhow::Result;
use orlop_integration::{Mesh, Pod, Reply};
use serde_json::json;

use crate::ways::{Ways, assert_none};

/// What Envoy makes sense of and Orlop refuses: see `docs/differences.md`.
const REFUSED: [&str; 13] = [
    "two blanks before the path",
    "two blanks before the version",
    "tabs for blanks",
    "blank at the end",
    "path without a slash",
    "path that is not ASCII",
    "carriage return in the path",
    "carriage return in a value",
    "folded value",
    "chunked in a folded line",
    "chunk size of 20 digits",
    "chunk ends in a line feed",
    "chunk longer than its size",
];

/// What a client sent, by what is wrong with it.
type Case = (&'static str, String);

#[test]
fn malformed_requests_are_treated_as_envoy_treats_them() -> Result<()> {
    let ways = Ways::open(|web| {
        json!([
            {"match": [{"uri": {"prefix": "/v2"}}], "route": [web.subset("v2")]},
            {"route": [web.subset("v1")]},
        ])
    })?;
    let host = &ways.web.host();
    let lists = [request_lines(host), headers(host), framing(host), chunks(host), sequences(host)];
    let cases = lists.concat();
    let of = |pod: &Pod| pod.tcp(Mesh::WEB).raw_each(cases.iter().map(|(_, bytes)| bytes.clone()));
    let (by_orlop, by_envoy) = (of(&ways.orlop)?, of(&ways.envoy)?);
    let mut differences = Vec::new();
    for ((name, _), (orlop, envoy)) in cases.iter().zip(by_orlop.iter().zip(&by_envoy)) {
        let (orlop, envoy) = (Treatment::of(orlop), Treatment::of(envoy));
        let envoy = if REFUSED.contains(name) { Treatment::refused() } else { envoy };
        if orlop != envoy {
            differences.push(format!("{name}\n  Orlop: {orlop:?}\n  Envoy: {envoy:?}"));
        }
    }
    assert_none(&differences);
    Ok(())
}

/// What became of the bytes of a case.
#[derive(Debug, PartialEq)]
struct Treatment {
    /// Of each answer, in their order.
    statuses: Vec<String>,
    /// Of each request that reached the server: method, path, authority, length of the body.
    reached: Vec<String>,
    /// Whether the proxy ended the connection.
    closed: bool,
}

impl Treatment {
    /// `400`, and the end of the connection.
    fn refused() -> Self {
        Self { statuses: vec!["400".to_owned()], reached: Vec::new(), closed: true }
    }

    fn of(reply: &Reply) -> Self {
        let statuses = reply.body.split("HTTP/1.1 ").skip(1);
        let bodies = reply.body.match_indices("{\"server\"").filter_map(|(start, _)| reply.body.get(start..));
        let echoes = bodies.filter_map(|body| {
            serde_json::Deserializer::from_str(body).into_iter::<serde_json::Value>().next()?.ok()
        });
        let reached = echoes.map(|echo| {
            let members = ["method", "path", "authority", "body_bytes"];
            members.map(|member| echo.get(member).map(ToString::to_string).unwrap_or_default()).join(" ")
        });
        Self {
            statuses: statuses.map(|answer| answer.chars().take(3).collect()).collect(),
            reached: reached.collect(),
            closed: reply.closed,
        }
    }
}

/// A request that is well-formed but for its first line.
fn request_lines(host: &str) -> Vec<Case> {
    [
        ("no HTTP/1 version", "GET / HTTP/3.7"),
        ("version with two digits", "GET / HTTP/1.10"),
        ("version with a leading zero", "GET / HTTP/01.1"),
        ("version in lower case", "GET / http/1.1"),
        ("text behind the version", "GET / HTTP/1.1 x"),
        ("HTTP/2 as a version", "GET / HTTP/2.0"),
        ("HTTP/1.0", "GET / HTTP/1.0"),
        ("HTTP/0.9", "GET /"),
        ("no path", "GET  HTTP/1.1"),
        ("two blanks before the path", "GET  / HTTP/1.1"),
        ("two blanks before the version", "GET /  HTTP/1.1"),
        ("tabs for blanks", "GET\t/\tHTTP/1.1"),
        ("blank at the beginning", " GET / HTTP/1.1"),
        ("blank at the end", "GET / HTTP/1.1 "),
        ("method in lower case", "get / HTTP/1.1"),
        ("unknown method", "FROB / HTTP/1.1"),
        ("method that is no token", "GE(T / HTTP/1.1"),
        ("path without a slash", "GET path HTTP/1.1"),
        ("fragment", "GET /a#b HTTP/1.1"),
        ("path that is not ASCII", "GET /\u{e9} HTTP/1.1"),
        ("control character in the path", "GET /a\u{1}b HTTP/1.1"),
        ("NUL in the path", "GET /a\0b HTTP/1.1"),
        ("carriage return in the path", "GET /a\rb HTTP/1.1"),
        ("quote in the path", "GET /a\"b HTTP/1.1"),
        ("absolute target", "GET http://elsewhere.test/a HTTP/1.1"),
        ("absolute target of another scheme", "GET ftp://elsewhere.test/a HTTP/1.1"),
        ("absolute target without a host", "GET http:///a HTTP/1.1"),
        ("absolute target with a user", "GET http://user@elsewhere.test/a HTTP/1.1"),
        ("asterisk", "GET * HTTP/1.1"),
        ("asterisk for OPTIONS", "OPTIONS * HTTP/1.1"),
        ("TRACE", "TRACE / HTTP/1.1"),
        ("CONNECT to a path", "CONNECT / HTTP/1.1"),
        ("CONNECT", "CONNECT elsewhere.test:443 HTTP/1.1"),
        ("not HTTP", "INVALID CONNECTION PREFACE"),
        ("the beginning of HTTP/2", "PRI * HTTP/1.1"),
    ]
    .map(|(name, line)| (name, format!("{line}\r\nhost: {host}\r\n\r\n")))
    .into()
}

/// A `GET` with these lines beside `host`.
fn headers(host: &str) -> Vec<Case> {
    let long = format!("x-long: {}\r\n", "a".repeat(70_000));
    let (many, hundred) = ("x: 1\r\n".repeat(101), "x: 1\r\n".repeat(99));
    let mut cases: Vec<Case> = [
        ("blank in a header name", "bad name: 1\r\n"),
        ("blank before the colon", "x-bad : 1\r\n"),
        ("blank before the name", " x-bad: 1\r\n"),
        ("header without a colon", "bad\r\n"),
        ("header without a name", ": 1\r\n"),
        ("header without a value", "x-empty:\r\n"),
        ("header name that is no token", "x(y): 1\r\n"),
        ("header name that is not ASCII", "x-\u{e9}: 1\r\n"),
        ("NUL in a header name", "x-\0: 1\r\n"),
        ("NUL in a value", "x-value: a\0b\r\n"),
        ("control character in a value", "x-value: a\u{1}b\r\n"),
        ("value that is not ASCII", "x-value: \u{e9}\r\n"),
        ("carriage return in a value", "x-value: a\rb\r\n"),
        ("tab in a value", "x-value: a\tb\r\n"),
        ("bare line feed at the end of a header", "x-value: a\n"),
        ("folded value", "x-value: a\r\n b\r\n"),
        ("underscore in a header name", "x_value: a\r\n"),
        ("header too large", &long),
        ("too many headers", &many),
        ("as many headers as there may be", &hundred),
        ("two hosts", "host: elsewhere.test\r\n"),
        ("length taken away", "connection: content-length, close\r\ncontent-length: 0\r\n"),
        ("client's address taken away", "connection: x-forwarded-for\r\nx-forwarded-for: 1.2.3.4\r\n"),
        ("client's protocol taken away", "connection: x-forwarded-proto\r\n"),
        ("ordinary header taken away", "connection: x-secret\r\nx-secret: 1\r\n"),
        ("host taken away", "connection: host\r\n"),
        ("path taken away", "connection: :path\r\n"),
        ("pseudo-header", ":path: /v2\r\n"),
        (
            "upgrade to HTTP/2",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
        ),
        ("upgrade that is not enabled", "connection: upgrade\r\nupgrade: elsewhat\r\n"),
        ("expectation that nobody knows", "expect: the-worst\r\n"),
        ("gRPC's te", "te: trailers\r\n"),
        ("other te", "te: gzip\r\n"),
        ("connection ends", "connection: close\r\n"),
    ]
    .map(|(name, lines)| (name, format!("GET / HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n")))
    .into();
    cases.extend([
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n".to_owned()),
        ("host with a blank", "GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned()),
        ("host with a path", format!("GET / HTTP/1.1\r\nhost: {host}/a\r\n\r\n")),
        ("host with a bad port", format!("GET / HTTP/1.1\r\nhost: {host}:x\r\n\r\n")),
        ("bare line feeds alone", format!("GET / HTTP/1.1\nhost: {host}\n\n")),
        ("empty lines before the request", format!("\r\n\r\nGET / HTTP/1.1\r\nhost: {host}\r\n\r\n")),
    ]);
    cases
}

/// Where the body of a `POST` ends. What follows it would be another request.
fn framing(host: &str) -> Vec<Case> {
    [
        ("length", "content-length: 3\r\n", "abc"),
        ("no length", "", "abc"),
        ("two lengths", "content-length: 1\r\ncontent-length: 2\r\n", "ab"),
        ("two equal lengths", "content-length: 2\r\ncontent-length: 2\r\n", "ab"),
        ("list of lengths", "content-length: 2, 2\r\n", "ab"),
        ("length is no number", "content-length: x\r\n", ""),
        ("length with a sign", "content-length: +2\r\n", "ab"),
        ("negative length", "content-length: -2\r\n", "ab"),
        ("length with a base", "content-length: 0x2\r\n", "ab"),
        ("length with a blank", "content-length: 1 2\r\n", "ab"),
        ("length with leading zeros", "content-length: 002\r\n", "ab"),
        ("length with a fraction", "content-length: 2.0\r\n", "ab"),
        ("length that is empty", "content-length:\r\n", ""),
        ("length beyond 64 bits", "content-length: 99999999999999999999\r\n", ""),
        ("length and chunked", "content-length: 3\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("chunked and length", "transfer-encoding: chunked\r\ncontent-length: 3\r\n", "0\r\n\r\n"),
        ("chunked", "transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("chunked in capitals", "Transfer-Encoding: CHUNKED\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("chunked behind a tab", "transfer-encoding:\tchunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("chunked before a blank", "transfer-encoding: chunked \r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("blank before the colon of chunked", "transfer-encoding : chunked\r\n", "0\r\n\r\n"),
        ("chunked in a folded line", "transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("chunked twice in a list", "transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
        ("chunked and identity", "transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("identity and chunked", "transfer-encoding: identity, chunked\r\n", "0\r\n\r\n"),
        ("gzip and chunked", "transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("quoted chunked", "transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n"),
        ("unknown transfer coding", "transfer-encoding: bogus\r\n", ""),
        ("transfer coding that is empty", "transfer-encoding:\r\n", ""),
        ("chunked behind a vertical tab", "transfer-encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
        ("underscore for the hyphen", "transfer_encoding: chunked\r\ncontent-length: 3\r\n", "abc"),
        ("expectation", "expect: 100-continue\r\ncontent-length: 3\r\n", ""),
        ("expectation that is met", "expect: 100-continue\r\ncontent-length: 3\r\n", "abc"),
    ]
    .map(|(name, lines, body)| (name, format!("POST / HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n{body}")))
    .into()
}

/// Bodies in chunks.
fn chunks(host: &str) -> Vec<Case> {
    [
        ("bad chunk", "zz\r\n\r\n"),
        ("chunk without a size", "\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with a base", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size behind a blank", " 3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size before a blank", "3 \r\nabc\r\n0\r\n\r\n"),
        ("chunk size before a tab", "3\t\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("chunk size with leading zeros", "0003\r\nabc\r\n0\r\n\r\n"),
        ("chunk size of 16 digits", "0000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("chunk size of 20 digits", "00000000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("chunk size beyond 64 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("chunk size of 64 bits", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("chunk size ends in a line feed", "3\nabc\r\n0\r\n\r\n"),
        ("chunk size ends in a carriage return", "3\rabc\r\n0\r\n\r\n"),
        ("chunk ends in a line feed", "3\r\nabc\n0\r\n\r\n"),
        ("chunk without an end", "3\r\nabc0\r\n\r\n"),
        ("chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("chunk extension", "3;a=b\r\nabc\r\n0\r\n\r\n"),
        ("chunk extension of the last chunk", "3\r\nabc\r\n0;a=b\r\n\r\n"),
        ("chunk extension behind a blank", "3 ;a=b\r\nabc\r\n0\r\n\r\n"),
        ("chunk extension with a line feed", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("chunk extension with a carriage return", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        ("chunk extension in quotes", "3;a=\"x;y\"\r\nabc\r\n0\r\n\r\n"),
        ("last chunk of many zeros", "3\r\nabc\r\n000\r\n\r\n"),
        ("last chunk ends in line feeds", "3\r\nabc\r\n0\n\n"),
        ("trailers", "3\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"),
        ("trailer that is none", "3\r\nabc\r\n0\r\nbad\r\n\r\n"),
        ("trailer that frames", "3\r\nabc\r\n0\r\ncontent-length: 3\r\n\r\n"),
    ]
    .map(|(name, body)| {
        (name, format!("POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n{body}"))
    })
    .into()
}

/// Several requests on one connection.
fn sequences(host: &str) -> Vec<Case> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let post = |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n{body}");
    vec![
        ("two requests at once", get("/a") + &get("/b")),
        ("a request behind one that ends the connection", {
            format!("GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n") + &get("/b")
        }),
        ("a request behind a body", post("content-length: 3\r\n", "abc") + &get("/b")),
        ("a request behind chunks", post("transfer-encoding: chunked\r\n", "0\r\n\r\n") + &get("/b")),
        (
            "a request behind a malformed one",
            format!("GET / HTTP/1.1\r\nhost: {host}\r\nbad\r\n\r\n") + &get("/b"),
        ),
        ("a malformed request behind a good one", get("/a") + "bad\r\n\r\n"),
        ("a request in the body of a GET", {
            let hidden = get("/hidden");
            format!("GET /a HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{hidden}", hidden.len())
                + &get("/b")
        }),
        ("HEAD and another", format!("HEAD /a HTTP/1.1\r\nhost: {host}\r\n\r\n") + &get("/b")),
    ]
}
