//! `orlop agent --takeover`: a new agent takes the place of a running one, and no request fails of it.
//!
//! The running agent hands its listeners to the new one, over a socket that only root may use. Both accept from the same
//! queues from the moment that the new one has a configuration in force, so no connection is ever without somebody. When
//! every pod has come so far, the new one says so; the old one stops accepting, tells its clients to go on with new
//! connections, and ends with the last of the old ones. The kernel's links are swapped as in every restart.
//!
//! ```text
//! new ── connects ──────────────────────────▶ old
//! new ◀── Pod { listeners } … , Lock ──────── old      one message a pod, with the descriptors
//! new ── Go ────────────────────────────────▶ old      the links run the new programs
//! ```

mod channel;
mod give;
mod take;

use serde::{Deserialize, Serialize};

pub(crate) use give::{Asked, Door, give};
pub(crate) use take::Inheritance;

/// The socket's name in the node's folder.
const SOCKET: &str = "takeover.sock";

/// What the running agent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Offer {
    /// A pod's listeners come with this, in this order.
    Pod {
        /// The name that proxy and datapath know it by.
        key: String,
        /// Device and inode of its network namespace.
        netns: (u64, u64),
        listeners: Vec<Listener>,
    },
    /// The node's lock comes with this, and nothing after it.
    Lock,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Listener {
    Outbound,
    Inbound,
    OutboundV6,
    InboundV6,
}

/// What the new agent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    /// Everything is in force here.
    Go,
}
