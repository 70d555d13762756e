//! Which listener has which address. No two have the same, as in Envoy: otherwise it would be anybody's guess which of
//! them a connection is for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::resource::{FieldError, FieldPath, ResourceError};

/// Addresses, with the names of the listeners that have them.
#[derive(Debug)]
pub(super) struct Addresses(HashMap<SocketAddr, Arc<str>>);

impl Addresses {
    /// Those of listeners that are there.
    pub(super) fn of<'a>(listeners: impl Iterator<Item = (&'a Arc<str>, &'a [SocketAddr])>) -> Self {
        let owned = listeners
            .flat_map(|(name, addresses)| addresses.iter().map(|address| (*address, Arc::clone(name))));
        Self(owned.collect())
    }

    /// A listener goes from its addresses to others. An error where another one has one of these.
    pub(super) fn change(
        &mut self,
        name: &Arc<str>,
        old: &[SocketAddr],
        new: &[SocketAddr],
    ) -> Result<(), ResourceError> {
        let taken = new.iter().enumerate().filter_map(|(position, address)| {
            let owner = self.0.get(address).filter(|owner| *owner != name)?;
            let reason = format!("{address} is the address of listener {owner:?}");
            Some(FieldError { path: path(position), reason })
        });
        let fields: Vec<_> = taken.collect();
        if !fields.is_empty() {
            return Err(ResourceError { name: name.to_string(), fields });
        }
        for address in old {
            self.0.remove(address);
        }
        self.0.extend(new.iter().map(|address| (*address, Arc::clone(name))));
        Ok(())
    }
}

/// Where a listener names its first address, and where the others.
fn path(position: usize) -> FieldPath {
    match position.checked_sub(1) {
        None => FieldPath::root().field("address"),
        Some(position) => FieldPath::root().field("additional_addresses").index(position).field("address"),
    }
}
