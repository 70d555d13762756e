//! Circuit breakers of a cluster: Envoy's `ResourceManager`. Each permit counts until it is dropped.
//!
//! The limits hold for each worker: with more workers than one, a cluster can reach them once on each.

use std::cell::Cell;
use std::rc::Rc;

use orlop_plan::resource::cluster::CircuitBreakers;

/// What is in use of a cluster's limits.
#[derive(Debug, Default)]
pub(super) struct ResourceManager {
    connections: Cell<u32>,
    pending: Cell<u32>,
    requests: Cell<u32>,
    retries: Cell<u32>,
}

macro_rules! permits {
    ($($(#[$doc:meta])* $permit:ident, $take:ident, $counter:ident, $limit:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $permit(Rc<ResourceManager>);

        impl Drop for $permit {
            fn drop(&mut self) {
                self.0.$counter.set(self.0.$counter.get().saturating_sub(1));
            }
        }

        impl ResourceManager {
            /// `None` where the limit is reached.
            pub(super) fn $take(self: &Rc<Self>, limits: &CircuitBreakers) -> Option<$permit> {
                let used = self.$counter.get();
                (used < limits.$limit).then(|| {
                    self.$counter.set(used + 1);
                    $permit(Rc::clone(self))
                })
            }
        }
    )*};
}

permits! {
    /// One of `max_connections`.
    ConnectionPermit, connection, connections, max_connections;
    /// One of `max_pending_requests`: a request that waits for a connection.
    PendingPermit, pending, pending, max_pending_requests;
    /// One of `max_requests`.
    RequestPermit, request, requests, max_requests;
    /// One of `max_retries`: an attempt after the first.
    RetryPermit, retry, retries, max_retries;
}

impl ResourceManager {
    /// A connection beyond the limit: Envoy lets a host that has none have one, so that it does not starve.
    pub(super) fn connection_beyond_limit(self: &Rc<Self>) -> ConnectionPermit {
        self.connections.set(self.connections.get().saturating_add(1));
        ConnectionPermit(Rc::clone(self))
    }
}
