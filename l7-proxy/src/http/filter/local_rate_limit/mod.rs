//! `envoy.filters.http.local_ratelimit`: requests beyond a rate are answered in the router's place.

mod bucket;

pub(crate) use bucket::{Buckets, WorkerBuckets};

use std::sync::Arc;

use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use orlop_plan::resource::local_rate_limit::LocalRateLimit;
use orlop_plan::resource::route::FilterConfig;

use self::bucket::{Counted, Taken};
use super::{FilterContext, Stopped};
use crate::http::format::FormatContext;
use crate::http::head::RequestHead;
use crate::http::header_mutation::MutationLevels;
use crate::http::local_reply::LocalReply;
use crate::stats::{LimitStat, Refusal, ResponseFlag};

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// The status of gRPC that says so.
const RESOURCE_EXHAUSTED: u32 = 8;

/// What clients are told of their limit.
#[derive(Debug)]
pub(super) struct Told {
    max_tokens: u32,
    taken: Taken,
    limits: bool,
    when_to_retry: bool,
}

impl Told {
    pub(super) fn encode(self, headers: &mut HeaderMap) {
        let Self { max_tokens, taken, limits, when_to_retry } = self;
        if limits {
            headers.insert(X_RATELIMIT_LIMIT, HeaderValue::from(max_tokens));
            headers.insert(X_RATELIMIT_REMAINING, HeaderValue::from(taken.remaining));
            headers.insert(X_RATELIMIT_RESET, HeaderValue::from(whole_seconds(taken.next_in)));
        }
        if when_to_retry && !taken.is_allowed {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(taken.next_in)));
        }
    }
}

/// `of_manager` is for requests whose route and virtual host say nothing.
pub(super) fn decode(
    of_manager: &Arc<LocalRateLimit>,
    name: &str,
    head: &mut RequestHead,
    context: FilterContext<'_>,
    told: &mut Option<Told>,
) -> Result<(), Box<Stopped>> {
    let of_route = context.said_to(name).into_iter().flatten().find_map(|said| match said {
        FilterConfig::LocalRateLimit(limit) => Some(limit),
        FilterConfig::ExtAuthz(_) => None,
    });
    let limit = of_route.unwrap_or(of_manager);
    let Some(settings) = limit.token_bucket.filter(|_| is_drawn(limit.enabled_per_million)) else {
        return Ok(());
    };
    let pod = &context.connection.pod;
    let Counted { bucket, counters } = pod.limits.bucket(limit, settings);
    counters.count(LimitStat::Enabled);
    let taken = bucket.take();
    if limit.tells_limits || limit.tells_when_to_retry {
        *told = Some(Told {
            max_tokens: settings.max_tokens,
            taken,
            limits: limit.tells_limits,
            when_to_retry: limit.tells_when_to_retry,
        });
    }
    if taken.is_allowed {
        counters.count(LimitStat::Ok);
        return Ok(());
    }
    counters.count(LimitStat::RateLimited);
    let levels = MutationLevels::new([Some(&limit.headers), None, None, None], false);
    if !is_drawn(limit.enforced_per_million) {
        levels.apply_to_request(head, &FormatContext::of(context.connection));
        return Ok(());
    }
    counters.count(LimitStat::Enforced);
    pod.counters.refuse(Refusal::RateLimit);
    let mut reply = LocalReply::text(limit.status, "local_rate_limited", "local_rate_limited");
    reply.grpc_status = limit.is_resource_exhausted.then_some(RESOURCE_EXHAUSTED);
    let format = FormatContext { request: Some(head), ..FormatContext::of(context.connection) };
    levels.apply_to_response(&mut reply.headers, &format);
    Err(Box::new(Stopped { flag: Some(ResponseFlag::RateLimited), ..Stopped::from(reply) }))
}

fn is_drawn(per_million: u32) -> bool {
    fastrand::u32(..1_000_000) < per_million
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "no longer than the longest interval, and never in the past"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.max(0.0).ceil() as u64
}
