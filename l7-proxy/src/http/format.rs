//! What substitution operators stand for, in headers and in access logs.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use orlop_plan::resource::format::{EndOperator, FormatOperator, FormatPart};
use orlop_plan::resource::header::{HeaderFormat, HeaderSource};
use orlop_plan::route_match::header_value;

use super::head::RequestHead;
use crate::access_log::write_time;
use crate::pod::ConnectionContext;
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
    /// The request, for values in responses and logs.
    pub(crate) request: Option<&'a RequestHead>,
    /// How it ended, for logs.
    pub(crate) end: Option<&'a End<'a>>,
}

/// What is known of a stream or connection when it is over. Empty texts are nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    /// When it began.
    pub(crate) began: SystemTime,
    /// How long it took.
    pub(crate) took: Duration,
    /// Bytes of content from the client.
    pub(crate) received: u64,
    /// Bytes of content to the client.
    pub(crate) sent: u64,
    /// Why the response is as it is, in Envoy's words.
    pub(crate) response_code_details: &'a str,
    /// Why the connection was ended.
    pub(crate) connection_termination_details: &'a str,
    /// Why there was no connection to the host.
    pub(crate) transport_failure: &'a str,
    /// This side of the connection to the host.
    pub(crate) upstream_local: Option<SocketAddr>,
    /// How often the host, or another, was asked.
    pub(crate) attempts: u32,
    /// The response's headers.
    pub(crate) response: Option<&'a HeaderMap>,
    /// SNI.
    pub(crate) server_name: &'a str,
    /// The route's.
    pub(crate) route: &'a str,
    /// What the client's certificate says that it is.
    pub(crate) peer_uris: &'a [String],
}

/// What an operator stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FormatValue<'a> {
    /// Nothing.
    Absent,
    /// A number.
    Number(u64),
    /// Anything else.
    Text(Cow<'a, [u8]>),
}

impl<'a> FormatValue<'a> {
    /// Its text; none where it is absent.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Absent => {}
            // Writing to a vector does not fail.
            Self::Number(number) => drop(write!(out, "{number}")),
            Self::Text(text) => out.extend_from_slice(text),
        }
    }

    fn text(text: &'a str) -> Self {
        if text.is_empty() { Self::Absent } else { Self::Text(Cow::Borrowed(text.as_bytes())) }
    }

    fn display(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Absent, |value| Self::Text(Cow::Owned(value.to_string().into_bytes())))
    }

    fn at_most(value: Option<Cow<'a, [u8]>>, max_length: Option<usize>) -> Self {
        let Some(value) = value else { return Self::Absent };
        let length = max_length.unwrap_or(usize::MAX).min(value.len());
        Self::Text(match value {
            Cow::Borrowed(value) => Cow::Borrowed(value.get(..length).unwrap_or_default()),
            Cow::Owned(mut value) => {
                value.truncate(length);
                Cow::Owned(value)
            }
        })
    }
}

impl<'a> FormatContext<'a> {
    /// Of a connection, before anything upstream is known.
    pub(crate) fn of(connection: &ConnectionContext) -> Self {
        Self {
            peer: connection.peer,
            local: connection.local,
            cluster: None,
            upstream: None,
            status: None,
            flags: &[],
            request: None,
            end: None,
        }
    }

    /// A header's value; `None` where it cannot be one.
    pub(crate) fn format(&self, format: &HeaderFormat, request: Option<&RequestHead>) -> Option<HeaderValue> {
        let parts = match format {
            HeaderFormat::Literal(value) => return Some(value.clone()),
            HeaderFormat::Parts(parts) => parts,
        };
        let mut out = Vec::new();
        for part in parts {
            self.write_part(part, request, &mut out);
        }
        HeaderValue::try_from(out).ok()
    }

    /// One part of a text; what is not there is nothing.
    pub(crate) fn write_part(&self, part: &FormatPart, request: Option<&RequestHead>, out: &mut Vec<u8>) {
        match part {
            FormatPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            FormatPart::Operator(operator) => self.value(operator, request).write(out),
        }
    }

    /// What `operator` stands for.
    pub(crate) fn value<'v>(
        &self,
        operator: &FormatOperator,
        request: Option<&'v RequestHead>,
    ) -> FormatValue<'v>
    where
        'a: 'v,
    {
        match operator {
            FormatOperator::DownstreamRemoteAddress => FormatValue::display(Some(self.peer)),
            FormatOperator::DownstreamRemoteAddressWithoutPort => FormatValue::display(Some(self.peer.ip())),
            FormatOperator::DownstreamLocalAddress => FormatValue::display(Some(self.local)),
            FormatOperator::DownstreamLocalAddressWithoutPort => FormatValue::display(Some(self.local.ip())),
            FormatOperator::DownstreamLocalPort => FormatValue::Number(self.local.port().into()),
            FormatOperator::UpstreamRemoteAddress => FormatValue::display(self.upstream),
            FormatOperator::UpstreamCluster => FormatValue::text(self.cluster.unwrap_or_default()),
            FormatOperator::Protocol => {
                FormatValue::text(request.map_or("", |request| request.version.as_str()))
            }
            // Envoy's value while there is no response.
            FormatOperator::ResponseCode => {
                FormatValue::Number(self.status.map_or(0, |status| status.as_u16()).into())
            }
            FormatOperator::ResponseFlags if self.flags.is_empty() => FormatValue::text("-"),
            FormatOperator::ResponseFlags => {
                let flags: Vec<_> = self.flags.iter().map(|flag| flag.short()).collect();
                FormatValue::display(Some(flags.join(",")))
            }
            FormatOperator::RequestHeader { name, otherwise, max_length } => {
                let value = |source: &HeaderSource| source.value(&request?.for_routes());
                let value = value(name).or_else(|| value(otherwise.as_ref()?));
                FormatValue::at_most(value, *max_length)
            }
            FormatOperator::AtTheEnd(operator) => {
                self.end.map_or(FormatValue::Absent, |end| end.value(operator))
            }
        }
    }
}

impl<'a> End<'a> {
    /// Of a connection that has brought nothing yet.
    pub(crate) fn of(connection: &'a ConnectionContext, began: SystemTime) -> Self {
        let facts = connection.facts();
        Self {
            began,
            took: Duration::ZERO,
            received: 0,
            sent: 0,
            response_code_details: "",
            connection_termination_details: "",
            transport_failure: "",
            upstream_local: None,
            attempts: 0,
            response: None,
            server_name: facts.server_name,
            route: "",
            peer_uris: facts.peer.map_or(&[], |peer| peer.uris),
        }
    }

    fn value(&self, operator: &EndOperator) -> FormatValue<'a> {
        match operator {
            EndOperator::StartTime => {
                let mut text = Vec::new();
                write_time(self.began, &mut text);
                FormatValue::Text(text.into())
            }
            EndOperator::ResponseCodeDetails => FormatValue::text(self.response_code_details),
            EndOperator::ConnectionTerminationDetails => {
                FormatValue::text(self.connection_termination_details)
            }
            EndOperator::UpstreamTransportFailureReason if self.transport_failure.is_empty() => {
                FormatValue::Absent
            }
            // One word, as Envoy writes it.
            EndOperator::UpstreamTransportFailureReason => {
                FormatValue::display(Some(self.transport_failure.replace(' ', "_")))
            }
            EndOperator::BytesReceived => FormatValue::Number(self.received),
            EndOperator::BytesSent => FormatValue::Number(self.sent),
            EndOperator::Duration => {
                FormatValue::Number(u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX))
            }
            EndOperator::ResponseHeader { name, otherwise, max_length } => {
                let value = |name: &HeaderName| header_value(self.response?, name);
                let value = value(name).or_else(|| value(otherwise.as_ref()?));
                FormatValue::at_most(value, *max_length)
            }
            EndOperator::UpstreamLocalAddress => FormatValue::display(self.upstream_local),
            EndOperator::UpstreamRequestAttemptCount => FormatValue::Number(self.attempts.into()),
            EndOperator::RequestedServerName => FormatValue::text(self.server_name),
            EndOperator::RouteName => FormatValue::text(self.route),
            EndOperator::DownstreamPeerUriSan if self.peer_uris.is_empty() => FormatValue::Absent,
            EndOperator::DownstreamPeerUriSan => FormatValue::display(Some(self.peer_uris.join(","))),
        }
    }
}
