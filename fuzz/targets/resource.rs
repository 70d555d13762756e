//! One resource on its way through validation, the snapshot and the plans.

use std::time::SystemTime;

use envoy_types::pb::google::protobuf::Any;
use orlop_plan::snapshot::{Interner, Resource, Snapshot};
use orlop_proto::ResourceType;

/// Whatever the bytes are, nothing panics; what was accepted is accepted again; and a refusal says why and where.
pub fn deliver(kind: ResourceType, bytes: &[u8]) {
    let mut interner = Interner::new();
    let mut snapshot = Snapshot::new();
    let mut deliver = |name: &str| {
        let body = Any { type_url: kind.type_url().to_owned(), value: bytes.to_vec() };
        let resource = Resource { name: name.to_owned(), version: "1".to_owned(), body };
        snapshot.apply(&mut interner, kind, &[resource], &[], SystemTime::UNIX_EPOCH)
    };
    // A resource has to bear the name that it was delivered under, which only its decoder knows.
    let first = deliver("");
    let name = first.errors.first().map(|error| error.to_string()).unwrap_or_default();
    assert!(first.accepted == 1 || !name.is_empty(), "refused without a reason");
    let quoted = name.split('"').nth(1).unwrap_or_default().to_owned();
    let second = deliver(&quoted);
    assert_eq!(second.accepted + second.errors.len(), 1);
}
