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
