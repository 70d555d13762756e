//! Deadlines that nearly always pass unused, at nearly no cost.
//!
//! A timer of the runtime is registered once and then left alone: when it fires and the deadline has meanwhile been moved
//! on or away, it is registered again for what is left. So a connection with a timeout of 15 s and thousands of requests
//! a second touches the runtime's timers once in 15 s.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// One deadline at a time, for one task.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    deadline: Cell<Option<Instant>>,
    registered: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    /// Sets or replaces the deadline; `None` is never.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline.get() else { return Poll::Pending };
        let mut registered = self.registered.borrow_mut();
        let sleep = registered.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.deadline() > deadline.into() {
            sleep.as_mut().reset(deadline.into());
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sleep.deadline() >= deadline.into() {
                self.deadline.set(None);
                *registered = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
    }
}

#[cfg(test)]
mod tests {
    //! Under paused time, in which the runtime's clock moves on when nothing else can happen.

    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The standard clock does not stand still under paused time, so deadlines are taken from the runtime's.
    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// How long it takes to expire.
    async fn expiry(timer: &Timer) -> Duration {
        let begun = now();
        poll_fn(|cx| timer.poll_expired(cx)).await;
        now() - begun
    }

    /// Polls it once, which registers it.
    async fn is_pending(timer: &Timer) -> bool {
        poll_fn(|cx| Poll::Ready(timer.poll_expired(cx).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn it_expires_at_its_deadline() {
        let timer = Timer::default();
        timer.set(Some(now() + 5 * SECOND));
        assert!(expiry(&timer).await.abs_diff(5 * SECOND) <= Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_replaces_one_that_was_registered() {
        let timer = Timer::default();
        timer.set(Some(now() + SECOND));
        assert!(is_pending(&timer).await);
        timer.set(Some(now() + 5 * SECOND));
        assert!(expiry(&timer).await.abs_diff(5 * SECOND) <= Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_replaces_one_that_was_registered() {
        let timer = Timer::default();
        timer.set(Some(now() + 5 * SECOND));
        assert!(is_pending(&timer).await);
        timer.set(Some(now() + SECOND));
        assert!(expiry(&timer).await.abs_diff(SECOND) <= Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_it_does_not_expire() {
        let timer = Timer::default();
        timer.set(Some(now() + SECOND));
        assert!(is_pending(&timer).await);
        timer.set(None);
        assert!(tokio::time::timeout(60 * SECOND, expiry(&timer)).await.is_err());
    }
}
