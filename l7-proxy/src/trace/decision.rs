//! Whether a request is traced, and how its id tells: Envoy keeps the reason in a digit of the UUID that is always `4` otherwise.

use http::{HeaderMap, HeaderValue};
use orlop_plan::resource::tracing::{RequestId, Sampling};

use crate::stats::FilterStat;

const X_REQUEST_ID: &str = "x-request-id";
const X_CLIENT_TRACE_ID: &str = "x-client-trace-id";
/// The length of a UUID, and which digit it is.
const LENGTH: usize = 36;
const POSITION: usize = 14;

/// Why a request is traced or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    NotTraceable,
    Sampling,
    ServiceForced,
    ClientForced,
}

impl Reason {
    pub(super) fn is_traced(self) -> bool {
        self != Self::NotTraceable
    }

    pub(super) fn stat(self) -> FilterStat {
        match self {
            Self::NotTraceable => FilterStat::TracingNotTraceable,
            Self::Sampling => FilterStat::TracingRandomSampling,
            Self::ServiceForced => FilterStat::TracingServiceForced,
            Self::ClientForced => FilterStat::TracingClientEnabled,
        }
    }

    fn digit(self) -> u8 {
        match self {
            Self::NotTraceable => b'4',
            Self::Sampling => b'9',
            Self::ServiceForced => b'a',
            Self::ClientForced => b'b',
        }
    }
}

/// Decides by the request's id, so that all hops come to the same end, and marks it.
pub(super) fn decide(headers: &mut HeaderMap, sampling: Sampling, config: RequestId) -> Reason {
    if !config.use_for_trace_sampling {
        return Reason::Sampling;
    }
    let Some(id) = headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes) else { return Reason::NotTraceable };
    let number = id.get(..8).and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(number) = number.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
        return Reason::NotTraceable;
    };
    let number = number % 10_000;
    let told = told(id);
    let mut reason = told;
    if reason == Reason::NotTraceable {
        if headers.contains_key(X_CLIENT_TRACE_ID) && sampling.client.takes(fastrand::u64(..)) {
            reason = Reason::ClientForced;
        } else if sampling.random.takes(number) {
            reason = Reason::Sampling;
        }
    }
    if reason.is_traced() && !sampling.overall.takes(number) {
        reason = Reason::NotTraceable;
    }
    if reason != told && config.pack_trace_reason {
        mark(headers, reason);
    }
    reason
}

fn told(id: &[u8]) -> Reason {
    let digit = id.get(POSITION).filter(|_| id.len() == LENGTH);
    let all = [Reason::Sampling, Reason::ServiceForced, Reason::ClientForced];
    all.into_iter().find(|reason| digit == Some(&reason.digit())).unwrap_or(Reason::NotTraceable)
}

fn mark(headers: &mut HeaderMap, reason: Reason) {
    let Some(id) = headers.get_mut(X_REQUEST_ID) else { return };
    let Ok(mut marked) = <[u8; LENGTH]>::try_from(id.as_bytes()) else { return };
    if let Some(digit) = marked.get_mut(POSITION) {
        *digit = reason.digit();
    }
    if let Ok(marked) = HeaderValue::from_bytes(&marked) {
        *id = marked;
    }
}

#[cfg(test)]
mod tests {
    use orlop_plan::resource::tracing::Fraction;

    use super::*;

    const ID: &str = "0000270f-0000-4000-8000-000000000000";
    const ALWAYS: RequestId = RequestId { pack_trace_reason: true, use_for_trace_sampling: true };

    fn of(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(X_REQUEST_ID), id.parse().unwrap())])
    }

    fn random(numerator: u32) -> Sampling {
        Sampling { random: Fraction { numerator, denominator: 10_000 }, ..Sampling::ALL }
    }

    #[test]
    fn the_id_decides_and_is_marked() {
        // 0x270f is 9999, the last that is taken.
        let mut headers = of(ID);
        assert_eq!(decide(&mut headers, random(9_999), ALWAYS), Reason::NotTraceable);
        assert_eq!(headers[X_REQUEST_ID], ID);
        assert_eq!(decide(&mut headers, random(10_000), ALWAYS), Reason::Sampling);
        assert_eq!(headers[X_REQUEST_ID], ID.replace("-4", "-9"));
        // The next hop believes the mark.
        assert_eq!(decide(&mut headers, random(0), ALWAYS), Reason::Sampling);
    }

    #[test]
    fn a_client_that_asks_is_traced() {
        let mut headers = of(ID);
        headers.insert(X_CLIENT_TRACE_ID, HeaderValue::from_static("7"));
        assert_eq!(decide(&mut headers, random(0), ALWAYS), Reason::ClientForced);
        assert_eq!(headers[X_REQUEST_ID], ID.replace("-4", "-b"));
    }

    #[test]
    fn what_is_traced_may_be_too_much_over_all() {
        let mut headers = of(&ID.replace("-4", "-a"));
        let none = Sampling { overall: Fraction { numerator: 0, denominator: 100 }, ..Sampling::ALL };
        assert_eq!(decide(&mut headers, none, ALWAYS), Reason::NotTraceable);
        assert_eq!(headers[X_REQUEST_ID], ID);
    }

    #[test]
    fn an_id_that_is_none_decides_nothing() {
        for id in ["", "short", "not-hexadecimal-at-all-but-long-enoug"] {
            assert_eq!(decide(&mut of(id), Sampling::ALL, ALWAYS), Reason::NotTraceable, "{id}");
        }
    }
}
