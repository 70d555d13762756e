//! The `date` header, formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

/// A date that is at most a second old.
#[derive(Debug, Default)]
pub(crate) struct DateCache(RefCell<Option<(Instant, HeaderValue)>>);

impl DateCache {
    /// The date at `now`.
    pub(crate) fn at(&self, now: Instant) -> HeaderValue {
        let mut cached = self.0.borrow_mut();
        if let Some((until, date)) = &*cached
            && now < *until
        {
            return date.clone();
        }
        let time = SystemTime::now();
        let date = HeaderValue::try_from(httpdate::fmt_http_date(time))
            .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        let until = now + until_next_second(time);
        *cached = Some((until, date.clone()));
        date
    }
}

fn until_next_second(time: SystemTime) -> Duration {
    let nanos =
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since_epoch| since_epoch.subsec_nanos());
    Duration::from_nanos(1_000_000_000_u64.saturating_sub(nanos.into()))
}
