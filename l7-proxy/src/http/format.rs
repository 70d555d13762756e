//! Header values with substitution operators.

use std::fmt::Write;
use std::net::SocketAddr;

use http::{HeaderValue, StatusCode};
use orlop_plan::resource::header::{FormatOperator, FormatPart, HeaderFormat, HeaderSource};

use super::head::RequestHead;
use crate::stats::ResponseFlag;

/// What the operators refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FormatContext<'a> {
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Where the client connected to.
    pub(crate) local: SocketAddr,
    /// The chosen cluster, once there is one.
    pub(crate) cluster: Option<&'a str>,
    /// The host that was asked, once there is one.
    pub(crate) upstream: Option<SocketAddr>,
    /// The response's status, once there is one.
    pub(crate) status: Option<StatusCode>,
    /// What went wrong.
    pub(crate) flags: &'a [ResponseFlag],
    /// The request, for values in responses.
    pub(crate) request: Option<&'a RequestHead>,
}

impl FormatContext<'_> {
    /// The value; `None` where it cannot be a header's.
    pub(crate) fn format(&self, format: &HeaderFormat, request: Option<&RequestHead>) -> Option<HeaderValue> {
        let parts = match format {
            HeaderFormat::Literal(value) => return Some(value.clone()),
            HeaderFormat::Parts(parts) => parts,
        };
        let mut out = Vec::new();
        for part in parts {
            match part {
                FormatPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                FormatPart::Operator(operator) => self.operator(operator, request, &mut out),
            }
        }
        HeaderValue::try_from(out).ok()
    }

    fn operator(&self, operator: &FormatOperator, request: Option<&RequestHead>, out: &mut Vec<u8>) {
        match operator {
            FormatOperator::DownstreamRemoteAddress => display(self.peer, out),
            FormatOperator::DownstreamRemoteAddressWithoutPort => display(self.peer.ip(), out),
            FormatOperator::DownstreamLocalAddress => display(self.local, out),
            FormatOperator::DownstreamLocalAddressWithoutPort => display(self.local.ip(), out),
            FormatOperator::DownstreamLocalPort => display(self.local.port(), out),
            FormatOperator::UpstreamRemoteAddress => {
                if let Some(upstream) = self.upstream {
                    display(upstream, out);
                }
            }
            FormatOperator::UpstreamCluster => {
                out.extend_from_slice(self.cluster.unwrap_or_default().as_bytes());
            }
            FormatOperator::Protocol => {
                out.extend_from_slice(request.map_or("", |head| head.version.as_str()).as_bytes());
            }
            // Envoy's value while there is no response.
            FormatOperator::ResponseCode => display(self.status.map_or(0, |status| status.as_u16()), out),
            FormatOperator::ResponseFlags if self.flags.is_empty() => out.push(b'-'),
            FormatOperator::ResponseFlags => {
                let flags: Vec<_> = self.flags.iter().map(|flag| flag.short()).collect();
                out.extend_from_slice(flags.join(",").as_bytes());
            }
            FormatOperator::RequestHeader { name, otherwise, max_length } => {
                let value = |source: &HeaderSource| {
                    source.value(&request?.for_routes()).map(std::borrow::Cow::into_owned)
                };
                let value = value(name).or_else(|| value(otherwise.as_ref()?)).unwrap_or_default();
                let length = max_length.unwrap_or(usize::MAX).min(value.len());
                out.extend_from_slice(value.get(..length).unwrap_or_default());
            }
        }
    }
}

fn display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    let mut text = String::new();
    // Writing to a string does not fail.
    if write!(text, "{value}").is_ok() {
        out.extend_from_slice(text.as_bytes());
    }
}
