//! A connection to a chosen host, in TLS where it is owed.

use tokio::time::{Instant, timeout_at};

use super::addresses;
use super::cluster::UpstreamCluster;
use super::pick::Picked;
use crate::dialer::{DialError, DialOptions};
use crate::pod::ConnectionContext;
use crate::stats::Refusal;
use crate::tls::{Stream, TlsFailure};

/// Why there is no connection. All of them are `UF` to Envoy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The host cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It can, and the handshake failed.
    #[error("TLS: {0}")]
    Tls(#[from] TlsFailure),
    /// `connect_timeout` passed within the handshake.
    #[error("TLS: no answer within connect_timeout")]
    TlsTimeout,
}

impl OpenError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`: Envoy's words where the host could not be reached, nothing where it did not
    /// answer, and the proxy's own words about TLS.
    pub(crate) fn transport_failure(&self) -> String {
        match self {
            Self::Dial(DialError::Connect { source, .. }) => {
                let text = source.to_string();
                let (error, _code) = text.split_once(" (os error").unwrap_or((&text, ""));
                format!("delayed connect error: {error}")
            }
            Self::Dial(DialError::Timeout { .. }) | Self::TlsTimeout => String::new(),
            Self::Dial(DialError::Namespace(_) | DialError::Socket { .. }) | Self::Tls(_) => self.to_string(),
        }
    }
}

/// Opens a connection for a downstream one. `alpn` is offered in the place of the TLS context's.
pub(crate) async fn open(
    cluster: &UpstreamCluster,
    picked: &Picked,
    connection: &ConnectionContext,
    alpn: Option<&[String]>,
) -> Result<Stream, OpenError> {
    let opened = connect(cluster, picked, connection, alpn).await;
    if let Err(error) = &opened {
        cluster.counters().connect_failures.inc();
        if let Some(refusal) = refusal(error) {
            connection.pod.counters.refuse(refusal);
        }
        tracing::debug!(pod = %connection.pod.name, cluster = %cluster.cluster().name, %error, "connect failed");
    }
    opened
}

async fn connect(
    cluster: &UpstreamCluster,
    picked: &Picked,
    connection: &ConnectionContext,
    alpn: Option<&[String]>,
) -> Result<Stream, OpenError> {
    let options = DialOptions::from(&**cluster.cluster());
    let deadline = Instant::now() + options.timeout;
    let (dialer, endpoint) = (&connection.pod.dialer, picked.host().endpoint());
    let source = connection.upstream_source();
    let tcp = if source.is_some() || endpoint.about.additional_addresses.is_empty() {
        dialer.connect(picked.address(), source, options).await?
    } else {
        // Boxed, so that hosts of one address do not carry its state.
        Box::pin(addresses::connect(dialer, endpoint, options, deadline)).await?
    };
    let Some(tls) = picked.tls() else { return Ok(Stream::Plain(tcp)) };
    // Boxed, so that plaintext does not carry its state.
    let handshake = Box::pin(tls.connect(endpoint, alpn, tcp));
    Ok(timeout_at(deadline, handshake).await.map_err(|_elapsed| OpenError::TlsTimeout)??)
}

/// What it is counted as.
fn refusal(error: &OpenError) -> Option<Refusal> {
    match error {
        OpenError::Dial(_) => None,
        OpenError::TlsTimeout => Some(Refusal::UpstreamTlsTimeout),
        OpenError::Tls(failure) => Some(match failure {
            TlsFailure::Name(_) => Refusal::UpstreamTlsName,
            TlsFailure::Certificate(_) | TlsFailure::NoCertificate => Refusal::UpstreamTlsCertificate,
            TlsFailure::Protocol(_) | TlsFailure::Connection(_) | TlsFailure::NoServerName => {
                Refusal::UpstreamTlsHandshake
            }
        }),
    }
}
