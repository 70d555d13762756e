//! `envoy.filters.http.fault`: requests are delayed, answered in the router's place, or both.

use http::StatusCode;
use orlop_plan::resource::fault::{AbortStatus, Fault};

use super::{FilterContext, Stopped};
use crate::http::head::RequestHead;
use crate::http::local_reply::LocalReply;
use crate::stats::{FilterStat, ResponseFlag};

/// `of_manager` is for requests whose route and virtual host say nothing. Says whether the request was `delayed`.
pub(super) async fn decode(
    of_manager: &Fault,
    head: &RequestHead,
    context: FilterContext<'_>,
    delayed: &mut bool,
) -> Result<(), Box<Stopped>> {
    let of_route = context.route.and_then(|route| {
        let levels = [&route.route.filters, &route.virtual_host.filters];
        levels.into_iter().find_map(|level| level.fault.as_deref())
    });
    let fault = of_route.unwrap_or(of_manager);
    if fault.is_none() {
        return Ok(());
    }
    let request = head.for_routes();
    if !fault.headers.iter().all(|header| header.matches(&request)) {
        return Ok(());
    }
    if let Some(delay) = fault.delay.filter(|delay| is_drawn(delay.per_million)) {
        context.counters.filter(FilterStat::FaultDelaysInjected);
        context.connection.pod.counters.flag(ResponseFlag::DelayInjected);
        *delayed = true;
        // On its own, so that requests without one do not take its space.
        Box::pin(tokio::time::sleep(delay.duration)).await;
    }
    let Some(abort) = fault.abort.filter(|abort| is_drawn(abort.per_million)) else { return Ok(()) };
    context.counters.filter(FilterStat::FaultAbortsInjected);
    let (status, grpc_status) = match abort.status {
        AbortStatus::Http(status) => (status, None),
        AbortStatus::Grpc(status) => (StatusCode::OK, Some(status)),
    };
    let reply =
        LocalReply { grpc_status, ..LocalReply::text(status, "fault_filter_abort", "fault filter abort") };
    Err(Stopped { flag: Some(ResponseFlag::FaultInjected), ..Stopped::from(reply) }.into())
}

fn is_drawn(per_million: u32) -> bool {
    fastrand::u32(..1_000_000) < per_million
}
