//! Envoy's substitution format strings: text with `%...%` operators, for header values and access logs.

use http::HeaderName;

use super::header::HeaderSource;

/// One part of a formatted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatPart {
    /// As it stands (`%%` already unescaped).
    Text(String),
    /// An operator.
    Operator(FormatOperator),
}

/// The operators that are honoured; any other one is refused when validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatOperator {
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`
    DownstreamRemoteAddress,
    /// `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`
    DownstreamRemoteAddressWithoutPort,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`
    DownstreamLocalAddress,
    /// `%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%`
    DownstreamLocalAddressWithoutPort,
    /// `%DOWNSTREAM_LOCAL_PORT%`
    DownstreamLocalPort,
    /// `%UPSTREAM_REMOTE_ADDRESS%`, `%UPSTREAM_HOST%` (nothing until one was chosen)
    UpstreamRemoteAddress,
    /// `%UPSTREAM_CLUSTER%`, `%UPSTREAM_CLUSTER_RAW%`
    UpstreamCluster,
    /// `%PROTOCOL%`
    Protocol,
    /// `%RESPONSE_CODE%`
    ResponseCode,
    /// `%RESPONSE_FLAGS%`
    ResponseFlags,
    /// `%REQ(X?Y):Z%`: header X, else Y, at most Z bytes
    RequestHeader {
        /// First choice.
        name: HeaderSource,
        /// Second choice.
        otherwise: Option<HeaderSource>,
        /// Longest output in bytes.
        max_length: Option<usize>,
    },
    /// What is known when a stream or connection is over: of access logs alone.
    AtTheEnd(EndOperator),
}

/// The operators of access logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndOperator {
    /// `%START_TIME%`, in Envoy's own form
    StartTime,
    /// `%RESPONSE_CODE_DETAILS%`
    ResponseCodeDetails,
    /// `%CONNECTION_TERMINATION_DETAILS%`
    ConnectionTerminationDetails,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    UpstreamTransportFailureReason,
    /// `%BYTES_RECEIVED%`
    BytesReceived,
    /// `%BYTES_SENT%`
    BytesSent,
    /// `%DURATION%`, in milliseconds
    Duration,
    /// `%RESP(X?Y):Z%`: header X of the response, else Y, at most Z bytes
    ResponseHeader {
        /// First choice.
        name: HeaderName,
        /// Second choice.
        otherwise: Option<HeaderName>,
        /// Longest output in bytes.
        max_length: Option<usize>,
    },
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    UpstreamLocalAddress,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`
    UpstreamRequestAttemptCount,
    /// `%REQUESTED_SERVER_NAME%`
    RequestedServerName,
    /// `%ROUTE_NAME%`
    RouteName,
    /// `%DOWNSTREAM_PEER_URI_SAN%`
    DownstreamPeerUriSan,
}
