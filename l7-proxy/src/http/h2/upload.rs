//! A request's body in `hyper`'s hands, watched: timeouts run from its end, and its failure is the client's, not the
//! upstream's.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body;

use crate::http::body::{BodyError, PolledFrame, RequestBody};

/// A body that tells its [`UploadWatch`] how it ends.
#[derive(Debug)]
pub(crate) struct Upload {
    body: RequestBody,
    watch: UploadWatch,
}

/// What became of a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct UploadWatch(Rc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    ended: Cell<bool>,
    error: Cell<Option<BodyError>>,
    waker: RefCell<Option<Waker>>,
}

impl Upload {
    /// Watches `body`.
    pub(crate) fn new(body: RequestBody) -> (Self, UploadWatch) {
        let watch = UploadWatch::default();
        watch.0.ended.set(body.is_empty());
        (Self { body, watch: watch.clone() }, watch)
    }
}

impl UploadWatch {
    /// Ready once all of the body was taken.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.ended.get() {
            return Poll::Ready(());
        }
        self.0.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Why the body broke off.
    pub(crate) fn error(&self) -> Option<BodyError> {
        self.0.error.get()
    }

    fn end(&self) {
        self.0.ended.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let frame = self.body.poll_next(cx);
        match &frame {
            Poll::Ready(Some(Err(error))) => self.watch.0.error.set(Some(*error)),
            Poll::Ready(None) => self.watch.end(),
            Poll::Ready(Some(Ok(_))) if self.body.is_empty() => self.watch.end(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }
}
