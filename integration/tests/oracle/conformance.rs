//! What h2spec, the conformance suite of HTTP/2, finds.

use anyhow::Result;
use orlop_integration::tools::{H2SPEC_ENV, prepared};
use orlop_integration::{Mesh, Service};

/// Text for the preface of HTTP/2 is taken for HTTP/1.1, as by Envoy, and refused in its words: what h2spec reads as a frame that
/// does not end. `malformed.rs` compares the answer with Envoy's.
const ANSWERED_IN_HTTP_1: &str = "2: Sends invalid connection preface";

#[test]
fn h2spec_finds_nothing_but_that_text_is_answered_in_http_1() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    let to = Mesh::WEB;
    let output = mesh
        .client
        .command(prepared(H2SPEC_ENV)?)?
        .args(["--strict", "--host", &to.ip().to_string(), "--port", &to.port().to_string()])
        .output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    let (tests, failures) = report.split_once("Failures:").unwrap_or((&report, ""));
    let failed: Vec<_> = failures.lines().filter_map(|line| line.trim().strip_prefix("× ")).collect();
    assert_eq!(failed, [ANSWERED_IN_HTTP_1], "{failures}");
    assert_eq!(tests.matches('✔').count(), 146, "{tests}");
    Ok(())
}
