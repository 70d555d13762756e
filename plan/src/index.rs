//! Who names what: from a name to those that name it.

use std::hash::Hash;
use std::sync::Arc;

use orlop_shared_map::{Pool, SharedMap, SharedSet};

/// From a name to the members that name it; never to none.
pub(crate) type Index<M> = SharedMap<Arc<str>, SharedSet<M>>;

/// What indexes share.
#[derive(Debug)]
pub(crate) struct IndexPools<M> {
    names: Pool<Arc<str>, SharedSet<M>>,
    members: Pool<M, ()>,
}

impl<M> Default for IndexPools<M> {
    fn default() -> Self {
        Self { names: Pool::new(), members: Pool::new() }
    }
}

/// A member that names something from now on, or no more.
#[derive(Debug)]
pub(crate) struct Naming<M> {
    pub(crate) name: Arc<str>,
    pub(crate) member: M,
    pub(crate) names: bool,
}

impl<M> Naming<M> {
    pub(crate) fn new(name: &Arc<str>, member: M, names: bool) -> Self {
        Self { name: Arc::clone(name), member, names }
    }
}

/// Brings an index up to date.
pub(crate) fn edit<M: Clone + Ord + Hash>(
    index: &mut Index<M>,
    pools: &mut IndexPools<M>,
    mut namings: Vec<Naming<M>>,
) {
    namings.sort_by(|a, b| a.name.cmp(&b.name));
    let mut edits = Vec::new();
    for group in namings.chunk_by(|a, b| a.name == b.name) {
        let Some(Naming { name, .. }) = group.first() else { continue };
        let mut members = index.get(name).cloned().unwrap_or_default();
        let changes = group.iter().map(|naming| (naming.member.clone(), naming.names.then_some(())));
        members.edit(&mut pools.members, changes);
        edits.push((Arc::clone(name), (!members.is_empty()).then_some(members)));
    }
    index.edit(&mut pools.names, edits);
}

/// Who names `name`.
pub(crate) fn members<'a, M>(index: &'a Index<M>, name: &str) -> impl Iterator<Item = &'a M> + use<'a, M> {
    index.get(name).into_iter().flat_map(SharedSet::keys)
}
