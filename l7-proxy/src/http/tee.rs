//! A request's body that others get too, while it passes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Frame;

use super::body::{BodyError, PolledFrame, RequestBody};

/// What a copy may be behind: Envoy's limit for buffered bodies. A copy that is further behind breaks off.
const LIMIT: usize = 1024 * 1024;

/// The body, for whom it is meant. How fast it passes does not depend on the copies.
#[derive(Debug)]
pub(crate) struct Tee {
    source: Box<RequestBody>,
    copies: Vec<Weak<RefCell<Pending>>>,
    ended: bool,
}

/// A copy of it.
#[derive(Debug)]
pub(crate) struct TeeCopy(Rc<RefCell<Pending>>);

/// What a copy has not taken yet.
#[derive(Debug, Default)]
struct Pending {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    end: Option<Result<(), BodyError>>,
    reader: Option<Waker>,
}

impl Tee {
    /// Nothing of `source` has been read yet.
    pub(crate) fn new(source: RequestBody) -> Self {
        Self { source: Box::new(source), copies: Vec::new(), ended: false }
    }

    /// Another one who gets the whole body.
    pub(crate) fn copy(&mut self) -> TeeCopy {
        let pending = Rc::<RefCell<Pending>>::default();
        self.copies.push(Rc::downgrade(&pending));
        TeeCopy(pending)
    }

    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        self.ended || self.source.is_empty()
    }

    /// The next piece.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let next = ready!(self.source.poll_next(cx));
        self.copies.retain(|copy| copy.upgrade().is_some_and(|copy| copy.borrow_mut().take(next.as_ref())));
        // A reader may stop asking when it has all of it.
        self.ended = !matches!(next, Some(Ok(_)));
        if !self.ended && self.source.is_empty() {
            self.end(Ok(()));
        }
        Poll::Ready(next)
    }

    fn end(&mut self, end: Result<(), BodyError>) {
        for copy in self.copies.drain(..).filter_map(|copy| copy.upgrade()) {
            copy.borrow_mut().end(end);
        }
    }
}

impl Drop for Tee {
    /// Whoever it is meant for has ended early: there will be no more of it.
    fn drop(&mut self) {
        let end = if self.is_end() { Ok(()) } else { Err(BodyError::DownstreamClosed) };
        self.end(end);
    }
}

impl Pending {
    /// What came; `false` where the copy gets no more.
    fn take(&mut self, next: Option<&Result<Frame<Bytes>, BodyError>>) -> bool {
        let frame = match next {
            None => return self.end(Ok(())),
            Some(Err(error)) => return self.end(Err(*error)),
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len();
            self.frames.push_back(Frame::data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push_back(Frame::trailers(trailers.clone()));
        }
        if self.bytes > LIMIT {
            return self.end(Err(BodyError::DownstreamClosed));
        }
        self.wake();
        true
    }

    /// No more comes.
    fn end(&mut self, end: Result<(), BodyError>) -> bool {
        self.end.get_or_insert(end);
        self.wake();
        false
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl TeeCopy {
    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        let pending = self.0.borrow();
        pending.frames.is_empty() && matches!(pending.end, Some(Ok(())))
    }

    /// The next piece.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let mut pending = self.0.borrow_mut();
        if let Some(Err(error)) = pending.end {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(frame) = pending.frames.pop_front() {
            pending.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        if pending.end.is_some() {
            return Poll::Ready(None);
        }
        pending.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}
