//! Pod network namespaces: entering one for the length of a closure, and the sockets that are made inside.
//!
//! The only room that calls `setns`. A socket belongs for its whole life to the namespace that it was created in, so
//! the proxy enters a pod's namespace to create a socket, comes back, and uses the socket from anywhere. A thread that
//! could not come back would carry one pod's traffic in another pod's network: that is never survivable, so a failed
//! return aborts the process.

mod netns;
mod socket;

pub use netns::{HomeNs, NetNs, NetNsError, NetNsId};
pub use socket::{
    bind_datagrams, connect_datagrams, connect_socket, listen, listen_transparent, raw_packets,
};
