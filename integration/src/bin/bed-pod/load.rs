//! Traffic that goes on until stdin closes, two requests at a time, so that whatever happens meanwhile meets both a
//! request under way and a connection that idles.

use std::io::Read;
use std::time::Duration;

use orlop_integration::traffic::outcome;
use orlop_integration::{Call, LoadReport, Reply};
use tokio::sync::watch;

use crate::client::{HttpClient, TcpClient};

const PAUSE: Duration = Duration::from_millis(2);

pub(crate) async fn http(call: Call) -> LoadReport {
    let (keep_alive, fresh) = (call.clone(), Call { fresh: true, ..call });
    let stop = stdin_closes();
    let (mut first, mut second) = (HttpClient::new(keep_alive), HttpClient::new(fresh));
    let (a, b) = tokio::join!(
        go_on(stop.clone(), async || first.send().await),
        go_on(stop, async || second.send().await)
    );
    merged(a, b)
}

pub(crate) async fn tcp(call: Call) -> LoadReport {
    let stop = stdin_closes();
    let (mut first, mut second) = (TcpClient::new(call.clone()), TcpClient::new(call));
    let (a, b) = tokio::join!(
        go_on(stop.clone(), async || first.round_trip().await),
        go_on(stop, async || second.round_trip().await)
    );
    merged(a, b)
}

async fn go_on(stop: watch::Receiver<bool>, mut once: impl AsyncFnMut() -> Reply) -> LoadReport {
    let mut report = LoadReport::default();
    loop {
        // The last round begins after the order to stop, so that the report knows of whatever came before it.
        let last = *stop.borrow();
        count(&mut report, &once().await);
        if last {
            return report;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn count(report: &mut LoadReport, reply: &Reply) {
    if reply.error.is_none() && reply.status < 500 {
        report.ok += 1;
    } else {
        let reason = reply.error.clone().unwrap_or_else(|| format!("{} {}", reply.status, reply.body));
        *report.failed.entry(reason).or_default() += 1;
    }
    *report.servers.entry(outcome(reply)).or_default() += 1;
}

fn merged(mut a: LoadReport, b: LoadReport) -> LoadReport {
    a.ok += b.ok;
    for (reason, n) in b.failed {
        *a.failed.entry(reason).or_default() += n;
    }
    for (server, n) in b.servers {
        *a.servers.entry(server).or_default() += n;
    }
    a
}

fn stdin_closes() -> watch::Receiver<bool> {
    let (closed, stop) = watch::channel(false);
    std::thread::spawn(move || {
        // Nothing is ever written to it; an error means the same as its end.
        let _ = std::io::stdin().read(&mut [0]);
        closed.send_replace(true);
    });
    stop
}
