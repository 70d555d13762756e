//! Which of a host's addresses answers. They are tried in order, the next as soon as one has failed or has kept silent for a
//! while (RFC 8305, section 5; Envoy's `HappyEyeballsConnectionImpl`).

use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use orlop_plan::resource::endpoint::LbEndpoint;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, sleep, timeout_at};

use crate::dialer::{DialError, DialOptions, Dialer};

/// How long an address is waited for before the next one is tried as well; Envoy's.
const HEAD_START: Duration = Duration::from_millis(300);

/// Opens a connection to the first that answers by `deadline`.
pub(super) async fn connect(
    dialer: &Dialer,
    endpoint: &LbEndpoint,
    options: DialOptions,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let silent = DialError::Timeout { to: endpoint.address, after: options.timeout };
    timeout_at(deadline, first_of(dialer, endpoint, options)).await.unwrap_or(Err(silent))
}

/// The error is that of the last one to fail.
async fn first_of(
    dialer: &Dialer,
    endpoint: &LbEndpoint,
    options: DialOptions,
) -> Result<TcpStream, DialError> {
    let mut waiting = endpoint.addresses().peekable();
    let mut tried = FuturesUnordered::new();
    loop {
        tried.extend(waiting.next().map(|address| dialer.connect(address, None, options)));
        let is_last = waiting.peek().is_none();
        let head_start = async {
            if is_last {
                pending::<()>().await;
            }
            sleep(HEAD_START).await;
        };
        select! {
            Some(outcome) = tried.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) if is_last && tried.is_empty() => return Err(error),
                Err(_) => {}
            },
            () = head_start => {}
        }
    }
}
