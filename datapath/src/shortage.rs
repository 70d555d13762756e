//! What becomes of a plan for which a map has no room, however large it may grow: the kernel decides less, and the proxy, which
//! knows all of it, decides the rest.
//!
//! What is in the maps already stays. What is new of that kind goes through the proxy until a later plan finds room. Refusals
//! are never left out: the proxy may know nothing of what is refused here.

use orlop_plan::kernel::{Frontend, InboundAction, KernelPlan, OutboundAction};
use orlop_shared_map::{Pool, SharedMap};

use crate::maps::MapName;
use crate::writer::Written;

/// A smaller plan, and of how many destinations and ports it leaves the decision to the proxy. `None` where nothing can be
/// left out.
pub(crate) fn with_less(plan: &KernelPlan, written: &Written, full: MapName) -> Option<(KernelPlan, usize)> {
    let mut smaller = plan.clone();
    let left = match full {
        MapName::Backends => {
            let new = new_balanced(plan, written);
            let left = new.len();
            let edits = new.into_iter().map(|frontend| (frontend, Some(OutboundAction::Proxy)));
            smaller.frontends.edit(&mut Pool::new(), edits);
            left
        }
        MapName::Frontends => {
            let new = new_balanced(plan, written);
            let left = new.len();
            // What has no entry of its own meets those for any address, and the default.
            let any = plan.frontends.iter().filter(|(to, action)| {
                to.addr.is_none() && !matches!(action, OutboundAction::Block | OutboundAction::Proxy)
            });
            let mut edits: Vec<_> = any.map(|(to, _)| (*to, Some(OutboundAction::Proxy))).collect();
            edits.extend(new.into_iter().filter(|to| to.addr.is_some()).map(|to| (to, None)));
            smaller.frontends.edit(&mut Pool::new(), edits);
            smaller.default_outbound = OutboundAction::Proxy;
            left
        }
        MapName::Sources => {
            let is_by_source = |action: &InboundAction| matches!(action, InboundAction::BySource(_));
            let new = plan
                .inbound
                .iter()
                .filter(|(port, action)| is_by_source(action) && written.inbound_at(**port) != Some(action));
            let edits: Vec<_> = new.map(|(port, _)| (*port, Some(InboundAction::Proxy))).collect();
            let default = is_by_source(&plan.default_inbound);
            let left = edits.len() + usize::from(default);
            smaller.inbound.edit(&mut Pool::new(), edits);
            if default {
                smaller.default_inbound = InboundAction::Proxy;
            }
            left
        }
        MapName::Inbound => {
            let left = plan.inbound.len();
            smaller.inbound = SharedMap::new();
            smaller.default_inbound = InboundAction::Proxy;
            left
        }
        _ => 0,
    };
    (left > 0).then_some((smaller, left))
}

/// Destinations that the kernel is to balance and does not balance like that so far.
fn new_balanced(plan: &KernelPlan, written: &Written) -> Vec<Frontend> {
    let balanced = plan.frontends.iter().filter(|(_, action)| matches!(action, OutboundAction::Balance(_)));
    balanced.filter(|(to, action)| written.frontend(**to) != Some(action)).map(|(to, _)| *to).collect()
}
