//! A request's body that is kept for another attempt while it passes, up to a limit.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::body::{PolledFrame, RequestBody};

/// Envoy's default for `per_request_buffer_limit_bytes` is the listener's buffer limit, 1 MiB.
const LIMIT: usize = 1024 * 1024;

/// The source of a body that can be sent more than once.
#[derive(Debug, Clone)]
pub(crate) struct Replay(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    source: RequestBody,
    kept: Vec<Kept>,
    bytes: usize,
    /// Whether what passes is still kept: not once it is too much, or no other attempt will follow.
    keeping: bool,
    complete: bool,
}

#[derive(Debug, Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct ReplayBody {
    replay: Replay,
    next: usize,
}

impl Replay {
    /// Nothing of `source` has been read yet.
    pub(crate) fn new(source: RequestBody) -> Self {
        Self(Rc::new(RefCell::new(State {
            source,
            kept: Vec::new(),
            bytes: 0,
            keeping: true,
            complete: false,
        })))
    }

    /// The whole body from its start.
    pub(crate) fn body(&self) -> ReplayBody {
        ReplayBody { replay: self.clone(), next: 0 }
    }

    /// Whether another attempt can be made.
    pub(crate) fn is_possible(&self) -> bool {
        self.0.borrow().keeping
    }

    /// No other attempt will be made: what was kept is let go of as soon as the last attempt has sent it.
    pub(crate) fn stop(&self) {
        self.0.borrow_mut().keeping = false;
    }
}

impl ReplayBody {
    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        let state = self.replay.0.borrow();
        self.next >= state.kept.len() && (state.complete || state.source.is_empty())
    }

    /// The next piece: from what was kept, then from the source.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let state = &mut *self.replay.0.borrow_mut();
        if let Some(kept) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if !state.keeping {
            state.kept = Vec::new();
            self.next = 0;
        }
        if state.complete {
            return Poll::Ready(None);
        }
        let frame = ready!(state.source.poll_next(cx));
        match &frame {
            Some(Ok(frame)) if state.keeping => {
                if let Some(data) = frame.data_ref() {
                    state.bytes += data.len();
                    state.kept.push(Kept::Data(data.clone()));
                } else if let Some(trailers) = frame.trailers_ref() {
                    state.kept.push(Kept::Trailers(trailers.clone()));
                }
                self.next = state.kept.len();
                state.keeping = state.bytes <= LIMIT;
            }
            Some(_) => {}
            None => state.complete = true,
        }
        Poll::Ready(frame)
    }
}
