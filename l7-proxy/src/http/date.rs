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
        let into_second =
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since_epoch| since_epoch.subsec_nanos());
        let date = HeaderValue::try_from(httpdate::fmt_http_date(time))
            .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        let until = now + Duration::from_secs(1) - Duration::from_nanos(into_second.into());
        *cached = Some((until, date.clone()));
        date
    }
}
