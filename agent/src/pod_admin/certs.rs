//! `/certs`: `envoy.admin.v3.Certificates`.

use serde::Serialize;

/// `envoy.admin.v3.Certificates`.
#[derive(Debug, Serialize)]
pub(super) struct Certificates {
    /// Empty: the node holds no identities, and a hop that owes mutual TLS is refused.
    certificates: [(); 0],
}

pub(super) fn certificates() -> Certificates {
    Certificates { certificates: [] }
}
