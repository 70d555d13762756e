//! Matches, rewrites, redirects, direct responses and header operations.

use anyhow::Result;
use orlop_integration::{Call, Service};
use serde_json::{Value, json};

use crate::ways::Ways;

fn routes(web: &Service) -> Value {
    let v1 = json!([web.subset("v1")]);
    let v2 = json!([web.subset("v2")]);
    json!([
        {"match": [{"uri": {"exact": "/exact"}}], "route": v2},
        {"match": [{"uri": {"prefix": "/prefix"}, "method": {"exact": "POST"}}], "route": v2},
        {"match": [{"uri": {"regex": "/re/[a-z]+"}}], "route": v2},
        {"match": [{"uri": {"exact": "/CASE"}, "ignoreUriCase": true}], "route": v2},
        {"match": [{"headers": {"x-exact": {"exact": "1"}}}], "route": v2},
        {"match": [{"headers": {"x-prefix": {"prefix": "ab"}}}], "route": v2},
        {"match": [{"headers": {"x-re": {"regex": "a.*b"}}}], "route": v2},
        {"match": [{"headers": {"x-present": {}}}], "route": v2},
        {"match": [{"uri": {"prefix": "/without"}, "withoutHeaders": {"x-no": {}}}], "route": v2},
        {"match": [{"queryParams": {"q": {"exact": "1"}}}], "route": v2},
        {"match": [{"queryParams": {"r": {"regex": "[0-9]+"}}}], "route": v2},
        {"match": [{"uri": {"prefix": "/rewrite/"}}], "rewrite": {"uri": "/"}, "route": v1},
        {"match": [{"uri": {"prefix": "/both"}}], "rewrite": {"uri": "/b", "authority": "b.example"}, "route": v1},
        {"match": [{"uri": {"regex": "/r/[0-9]+.*"}}],
         "rewrite": {"uriRegexRewrite": {"match": "^/r/([0-9]+)", "rewrite": "/x/\\1"}}, "route": v1},
        {"match": [{"uri": {"exact": "/old"}}],
         "redirect": {"uri": "/new", "authority": "new.example", "redirectCode": 302}},
        {"match": [{"uri": {"prefix": "/old-prefix"}}], "redirect": {"authority": "n.example"}},
        {"match": [{"uri": {"exact": "/old-port"}}], "redirect": {"port": 8443, "scheme": "https"}},
        {"match": [{"uri": {"exact": "/teapot"}}],
         "directResponse": {"status": 418, "body": {"string": "teapot"}}},
        {"match": [{"uri": {"exact": "/empty"}}], "directResponse": {"status": 204}},
        {"match": [{"uri": {"prefix": "/headers"}}], "route": v1, "headers": {
            "request": {"set": {"x-set": "set"}, "add": {"x-add": "2"}, "remove": ["x-rm"]},
            "response": {"set": {"x-resp": "1"}, "remove": ["x-echo-server"]}}},
        {"match": [{"uri": {"prefix": "/"}, "port": 9999}], "route": v2},
        {"route": v1},
    ])
}

/// Variations of one request.
struct Requests(Call);

impl Requests {
    fn get(&self, path: &str) -> Call {
        Call { path: path.to_owned(), ..self.0.clone() }
    }

    fn method(&self, method: &str, path: &str) -> Call {
        Call { method: method.to_owned(), ..self.get(path) }
    }

    fn with(&self, path: &str, header: &str, value: &str) -> Call {
        let mut call = self.get(path);
        call.headers.insert(header.to_owned(), value.to_owned());
        call
    }
}

#[test]
fn requests_are_matched_as_envoy_matches_them() -> Result<()> {
    let ways = Ways::open(routes)?;
    let requests = Requests(ways.request());
    ways.compare(&[
        ("default", requests.get("/")),
        ("exact", requests.get("/exact")),
        ("exact with a query", requests.get("/exact?a=b")),
        ("exact with a slash more", requests.get("/exact/")),
        ("exact in another case", requests.get("/EXACT")),
        ("case ignored", requests.get("/case")),
        ("prefix, wrong method", requests.get("/prefix/a")),
        ("prefix and method", requests.method("POST", "/prefix/a")),
        ("prefix in the middle of a segment", requests.method("POST", "/prefixed")),
        ("regex", requests.get("/re/abc")),
        ("regex matches the whole path", requests.get("/re/abc/1")),
        ("regex does not see the query", requests.get("/re/abc?x=1")),
        ("header exact", requests.with("/", "x-exact", "1")),
        ("header exact, other value", requests.with("/", "x-exact", "11")),
        ("header prefix", requests.with("/", "x-prefix", "abc")),
        ("header regex", requests.with("/", "x-re", "aXXb")),
        ("header regex matches the whole value", requests.with("/", "x-re", "aXXbc")),
        ("header present", requests.with("/", "x-present", "anything")),
        ("header absent", requests.get("/without")),
        ("header not absent", requests.with("/without", "x-no", "1")),
        ("query exact", requests.get("/?q=1")),
        ("query exact among others", requests.get("/?p=0&q=1&z")),
        ("query, other value", requests.get("/?q=12")),
        ("query regex", requests.get("/?r=42")),
        ("query regex, no match", requests.get("/?r=a42")),
        ("dots in the path", requests.get("/a/../exact")),
        ("slashes in the path", requests.get("//exact")),
        ("escaped path", requests.get("/%65xact")),
    ])
}

#[test]
fn rewrites_redirects_and_header_operations_are_done_as_envoy_does_them() -> Result<()> {
    let ways = Ways::open(routes)?;
    let requests = Requests(ways.request());
    ways.compare(&[
        ("rewrite of a prefix", requests.get("/rewrite/a/b?c=d")),
        ("rewrite of path and host", requests.get("/both/a")),
        ("rewrite by regex", requests.get("/r/42/more?x=1")),
        ("redirect", requests.get("/old")),
        ("redirect keeps the query", requests.get("/old?q=0")),
        ("redirect of the host", requests.get("/old-prefix/a?b=c")),
        ("redirect of scheme and port", requests.get("/old-port")),
        ("direct response", requests.get("/teapot")),
        ("direct response without a body", requests.get("/empty")),
        ("direct response to HEAD", requests.method("HEAD", "/teapot")),
        ("header operations", requests.with("/headers", "x-set", "old")),
        ("header add beside one that is there", requests.with("/headers", "x-add", "1")),
        ("header removed", requests.with("/headers", "x-rm", "1")),
        ("header kept", requests.with("/headers", "x-kept", "1")),
    ])
}

#[test]
fn methods_statuses_hosts_and_protocols_are_treated_as_envoy_treats_them() -> Result<()> {
    let ways = Ways::open(routes)?;
    let requests = Requests(ways.request());
    ways.compare(&[
        ("unknown method", requests.method("BREW", "/")),
        ("options", requests.method("OPTIONS", "/")),
        ("status of the server", requests.with("/", "x-echo-status", "404")),
        ("server error", requests.with("/", "x-echo-status", "500")),
        ("no body for 304", requests.with("/", "x-echo-status", "304")),
        (
            "host with its port",
            Call {
                headers: [("host".to_owned(), format!("{}:8080", ways.web.host()))].into(),
                ..requests.get("/exact")
            },
        ),
        ("host by its short name", requests.with("/exact", "host", "web")),
        ("host in capitals", requests.with("/exact", "host", &ways.web.host().to_uppercase())),
        ("body", Call { body: "b".repeat(10_000), ..requests.method("PUT", "/") }),
        ("HTTP/2", Call { h2: true, ..requests.get("/exact") }),
        ("HTTP/2, headers", Call { h2: true, ..requests.with("/headers", "x-set", "old") }),
        ("HTTP/2, direct response", Call { h2: true, ..requests.get("/teapot") }),
    ])
}
