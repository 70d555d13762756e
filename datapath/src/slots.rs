//! A backend set as slots of `BACKENDS`, and how a frontend's value refers to them.
//!
//! ```text
//! [limit]  [group, group, …]  [backend, backend, …]  [backend, …]
//!          └ the slice's base, or the first backend where there is one group
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};

use orlop_abi::{self as abi, ClusterName, Port, balance_flags};
use orlop_plan::kernel::{Backend, BackendSet, Choice};

use crate::alias;

/// How a set is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Slots in all.
    pub(crate) slots: u32,
    /// Slots in front of the base.
    pub(crate) before_base: u32,
    /// Slots of the first table.
    pub(crate) count: u32,
    /// [`balance_flags`].
    pub(crate) flags: u8,
    /// How many backends are compared.
    pub(crate) choices: u8,
}

impl Layout {
    /// `None` for a set beyond what indices can tell.
    pub(crate) fn of(set: &BackendSet) -> Option<Self> {
        let backends = u32::try_from(set.backends.len()).ok()?;
        let mut layout = Self { slots: backends, before_base: 0, count: backends, flags: 0, choices: 0 };
        if let Choice::LeastConnections { choices, groups } = &set.choice {
            layout.flags |= balance_flags::LEAST;
            layout.choices = *choices;
            if groups.len() > 1 {
                layout.flags |= balance_flags::GROUPED;
                layout.count = u32::try_from(groups.len()).ok()?;
                layout.slots = layout.slots.checked_add(layout.count)?;
            }
        }
        if set.limit.is_some() {
            layout.flags |= balance_flags::LIMITED;
            layout.before_base = 1;
            layout.slots = layout.slots.checked_add(1)?;
        }
        Some(layout)
    }
}

/// The slots of `set`, in order.
pub(crate) fn slots(set: &BackendSet) -> Vec<abi::Backend> {
    let mut slots = Vec::new();
    if let Some(limit) = &set.limit {
        slots.push(abi::Backend::limit(cluster_name(&limit.cluster), limit.connections));
    }
    match &set.choice {
        Choice::Weighted => slots.extend(backends(&set.backends)),
        Choice::LeastConnections { groups, .. } => {
            if groups.len() > 1 {
                let mut first = u32::try_from(groups.len()).unwrap_or(u32::MAX);
                for (group, slot) in groups.iter().zip(alias::table(groups.iter().map(|group| group.share))) {
                    let count = u32::try_from(group.backends).unwrap_or(u32::MAX);
                    slots.push(abi::Backend::group(first, count, slot.alias, slot.threshold));
                    first = first.saturating_add(count);
                }
            }
            let mut rest = set.backends.as_slice();
            for group in groups {
                let (these, others) = rest.split_at(group.backends.min(rest.len()));
                slots.extend(backends(these));
                rest = others;
            }
        }
    }
    slots
}

fn backends(backends: &[Backend]) -> impl Iterator<Item = abi::Backend> {
    let table = alias::table(backends.iter().map(|backend| backend.weight.max(1)));
    backends.iter().zip(table).map(|(backend, slot)| abi::Backend {
        address: backend.address.ip().into(),
        port: Port::new(backend.address.port()),
        padding: 0,
        alias: slot.alias,
        threshold: slot.threshold,
        weight: u32::try_from(backend.weight).unwrap_or(u32::MAX).max(1),
    })
}

/// The same for every agent of this build, so that counts outlive a restart.
fn cluster_name(name: &str) -> ClusterName {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let hash = hasher.finish().max(1);
    // Half by half: neither loses a bit.
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    ClusterName([half(hash >> 32), half(hash)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_plan::kernel::{ConnectionLimit, Group};

    fn set(weights: &[u64], choice: Choice) -> BackendSet {
        let backends = (1_u16..).zip(weights);
        let backends =
            backends.map(|(port, &weight)| Backend { address: ([10, 0, 0, 1], port).into(), weight });
        BackendSet { choice, ..BackendSet::weighted(backends.collect()) }
    }

    fn ports(slots: &[abi::Backend]) -> Vec<u16> {
        slots.iter().map(|slot| u16::from_be(slot.port.0)).collect()
    }

    #[test]
    fn slots_keep_the_order_and_the_addresses_of_the_backends() {
        assert_eq!(ports(&slots(&set(&[1, 2, 3], Choice::Weighted))), [1, 2, 3]);
    }

    #[test]
    fn groups_come_first_and_tell_where_their_backends_are() {
        let groups = vec![Group { share: 3, backends: 2 }, Group { share: 1, backends: 1 }];
        let grouped = set(&[1, 1, 1], Choice::LeastConnections { choices: 2, groups });
        let slots = slots(&grouped);
        assert_eq!(ports(&slots), [0, 0, 1, 2, 3]);
        assert_eq!((slots[0].as_group(), slots[1].as_group()), ((2, 2), (4, 1)));
        let layout = Layout::of(&grouped).unwrap();
        assert_eq!((layout.slots, layout.before_base, layout.count), (5, 0, 2));
        assert_eq!(layout.flags, balance_flags::LEAST | balance_flags::GROUPED);
    }

    #[test]
    fn a_limit_is_in_front_of_the_base() {
        let limit = Some(ConnectionLimit { cluster: "a".into(), connections: 7 });
        let limited = BackendSet { limit, ..set(&[1, 1], Choice::Weighted) };
        let slots = slots(&limited);
        assert_eq!((slots.len(), slots[0].as_limit().1), (3, 7));
        let layout = Layout::of(&limited).unwrap();
        assert_eq!((layout.slots, layout.before_base, layout.count), (3, 1, 2));
        assert_eq!(layout.flags, balance_flags::LIMITED);
    }
}
