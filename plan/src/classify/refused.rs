//! Destinations whose listener was refused and has no older version: connections are refused too.
//!
//! Letting them fall to the next listener would carry traffic past a policy that was asked for and not understood.

use super::finding::Finding;
use super::{Cause, Classified, Path};
use crate::kernel::Frontend;
use crate::resource::FieldPath;
use crate::resource::listener::TrafficDirection;
use crate::snapshot::{RefusedListener, ResourceType, Snapshot};

/// Overrides what the other listeners say of these destinations.
pub(super) fn refused(snapshot: &Snapshot, classified: &mut Classified) {
    for ((kind, name), rejection) in snapshot.rejections() {
        if *kind != ResourceType::Listener || snapshot.listeners().get(name).is_some() {
            continue;
        }
        let Some(listener) = &rejection.listener else { continue };
        let cause = Cause::Refused { error: rejection.error.to_string() };
        let finding = Finding::new(Path::Blocked, &format!("listener `{name}`"), FieldPath::root(), cause);
        block(listener, &finding, classified);
    }
}

fn block(listener: &RefusedListener, finding: &Finding, classified: &mut Classified) {
    let RefusedListener { addresses, takes_original_dst, direction } = listener;
    match (takes_original_dst, direction) {
        (true, TrafficDirection::Inbound) => classified.inbound_elsewhere(finding),
        (true, _) => classified.outbound_elsewhere(finding),
        (false, TrafficDirection::Inbound) => {}
        (false, _) => {
            for address in addresses {
                let addr = (!address.ip().is_unspecified()).then(|| address.ip());
                classified.outbound(Frontend { addr, port: address.port() }, finding, Vec::new());
            }
        }
    }
}
