//! What the consumer of a stream gets, and how it answers.
//!
//! One delivery is open at a time: the next comes after the verdict on the last, and meanwhile newer responses
//! are merged by resource name, so a slow consumer costs memory for one copy of its configuration at most.

use tokio::sync::oneshot;

use crate::{Resource, ResourceType, Subscriptions};

/// A change to the configuration of one workload.
#[derive(Debug)]
pub struct Delivery {
    /// The type of all resources in it.
    pub resource_type: ResourceType,
    /// New or changed resources. A resource whose bytes the consumer accepted before is not repeated.
    pub upserted: Vec<Resource>,
    /// Names of resources that exist no more, or that were asked for and do not exist.
    pub removed: Vec<String>,
    /// Where the verdict goes. A delivery that is dropped without one counts as rejected.
    pub reply: Reply,
}

impl Delivery {
    /// Everything in it was valid and is stored.
    pub fn accept(self, subscribe: Subscriptions) {
        self.reply.accept(subscribe);
    }

    /// Something in it was invalid; `detail` names every offending field. The good resources count as
    /// delivered and the consumer keeps them, as Envoy does.
    pub fn reject(self, detail: String, subscribe: Subscriptions) {
        self.reply.reject(detail, subscribe);
    }
}

/// The answer to one [`Delivery`].
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Verdict>);

impl Reply {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Verdict>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// See [`Delivery::accept`].
    pub fn accept(self, subscribe: Subscriptions) {
        self.send(Verdict { rejected: None, subscribe: Some(subscribe) });
    }

    /// See [`Delivery::reject`].
    pub fn reject(self, detail: String, subscribe: Subscriptions) {
        self.send(Verdict { rejected: Some(detail), subscribe: Some(subscribe) });
    }

    fn send(self, verdict: Verdict) {
        // The stream may have been closed meanwhile; then nobody waits for the verdict.
        drop(self.0.send(verdict));
    }
}

/// What the consumer made of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// What was wrong, if anything.
    pub(crate) rejected: Option<String>,
    /// The names wanted from now on; `None` leaves them as they are.
    pub(crate) subscribe: Option<Subscriptions>,
}

impl Verdict {
    /// For a consumer that went away without an answer.
    pub(crate) fn dropped() -> Self {
        Self {
            rejected: Some("the configuration was dropped before it was validated".into()),
            subscribe: None,
        }
    }
}
