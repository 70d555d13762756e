//! Accepted resources of one type, by name.

use std::sync::Arc;
use std::time::SystemTime;

use orlop_proto::Resource;
use orlop_shared_map::SharedMap;

use super::addresses::Addresses;
use super::interner::{Interned, Pool};
use super::kind::Kind;
use super::packed::Packed;
use super::{RefusedListener, ResourceType};
use crate::resource::{FieldError, FieldNote, FieldPath, RefusedRoute, ResourceError};

/// An accepted resource. Equal ones of several workloads are one.
#[derive(Debug)]
pub struct Stored<T> {
    /// Its name.
    pub name: Arc<str>,
    /// What is served.
    pub resource: Arc<T>,
    /// The protobuf bytes that it came as.
    pub bytes: Packed,
    /// The version that was accepted.
    pub version: Arc<str>,
    /// When it first came to the node.
    pub last_updated: SystemTime,
    /// What was accepted and has no effect yet.
    pub notes: Arc<[FieldNote]>,
    /// Routes that are refused by themselves, and why.
    pub refused_routes: Arc<[RefusedRoute]>,
}

/// Resources of one type by name. A clone costs nothing.
#[derive(Debug)]
pub struct Store<T>(SharedMap<Arc<str>, Arc<Stored<T>>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(SharedMap::new())
    }
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A resource that has another content now.
#[derive(Debug)]
pub(super) struct Changed<T> {
    pub(super) name: Arc<str>,
    pub(super) old: Option<Arc<T>>,
    pub(super) new: Option<Arc<T>>,
}

/// A resource that was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) name: Arc<str>,
    pub(super) version: String,
    pub(super) error: ResourceError,
    pub(super) listener: Option<RefusedListener>,
}

/// What a delivery did to a store.
#[derive(Debug)]
pub(super) struct Delivered<T> {
    pub(super) changed: Vec<Changed<T>>,
    pub(super) accepted: Vec<Arc<str>>,
    pub(super) refused: Vec<Refused>,
    pub(super) validated: usize,
}

impl<T> Store<T> {
    /// The resource of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.0.get(name).map(|stored| &stored.resource)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Stored<T>)> {
        self.0.iter().map(|(name, stored)| (name, &**stored))
    }

    pub(super) fn forget(&mut self, pool: &mut Pool<T>, names: &[Arc<str>]) {
        self.0.edit(&mut pool.nodes, names.iter().map(|name| (Arc::clone(name), None)));
    }

    /// Tells it from the stores of other workloads while both live: equal ones have the same. `None` for those of one
    /// resource or none.
    pub fn identity(&self) -> Option<usize> {
        self.0.identity()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes resources, each judged by itself but for the addresses of listeners, and lets go of others.
pub(super) fn deliver<T: Kind>(
    store: &mut Store<T>,
    pool: &mut Pool<T>,
    kind: ResourceType,
    upserts: &[Resource],
    removals: &[Arc<str>],
    at: SystemTime,
) -> Delivered<T> {
    let mut delivered =
        Delivered { changed: Vec::new(), accepted: Vec::new(), refused: Vec::new(), validated: 0 };
    let before = store.0.clone();
    let mut edits: Vec<_> = removals.iter().map(|name| (Arc::clone(name), None)).collect();
    let mut addresses = None;
    for resource in upserts {
        let accepted = accept(pool, kind, resource, at).and_then(|interned| {
            let name = &interned.stored.name;
            let old = before.get(name).map_or(&[][..], |stored| stored.resource.addresses());
            let new = interned.stored.resource.addresses();
            if old != new {
                let addresses = addresses.get_or_insert_with(|| {
                    let staying = before.iter().filter(|(name, _)| !removals.contains(name));
                    Addresses::of(staying.map(|(name, stored)| (name, stored.resource.addresses())))
                });
                addresses.change(name, old, new)?;
            }
            Ok(interned)
        });
        match accepted {
            Ok(Interned { stored, validated }) => {
                delivered.accepted.push(Arc::clone(&stored.name));
                delivered.validated += usize::from(validated);
                edits.push((Arc::clone(&stored.name), Some(stored)));
            }
            Err(error) => {
                delivered.validated += 1;
                delivered.refused.push(Refused {
                    name: resource.name.as_str().into(),
                    version: resource.version.clone(),
                    error,
                    listener: T::refused_listener(&resource.body.value),
                });
            }
        }
    }
    store.0.edit(&mut pool.nodes, edits);
    let resource = |stored: Option<&Arc<Stored<T>>>| stored.map(|stored| Arc::clone(&stored.resource));
    delivered.changed = before
        .diff(&store.0)
        .into_iter()
        .map(|change| Changed {
            name: Arc::clone(change.key()),
            old: resource(change.before()),
            new: resource(change.after()),
        })
        .filter(|Changed { old, new, .. }| match (old, new) {
            // The version alone.
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            _ => true,
        })
        .collect();
    delivered
}

fn accept<T: Kind>(
    pool: &mut Pool<T>,
    kind: ResourceType,
    resource: &Resource,
    at: SystemTime,
) -> Result<Interned<T>, ResourceError> {
    let Resource { name, version, body } = resource;
    if body.type_url != kind.type_url() {
        return Err(whole(name, format!("is a {}, not a {}", body.type_url, kind.type_url())));
    }
    let interned = pool.intern(&body.value, version, at)?;
    let own = &interned.stored.name;
    // A resource without a name of its own goes by the one that it is delivered under.
    if **own != **name && !kind.is_singleton() {
        return Err(whole(name, format!("calls itself {own:?}; the two names must be the same")));
    }
    Ok(interned)
}

fn whole(name: &str, reason: String) -> ResourceError {
    ResourceError {
        name: name.to_owned(),
        fields: vec![FieldError { path: FieldPath::root().field("name"), reason }],
    }
}
