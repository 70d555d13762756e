//! What a map holds.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::SharedMap;

/// A value that is cheap to copy and to compare. Whoever shares its content shares its allocation: an `Arc` is the same
/// as another one where both point to the same place.
pub trait Value: Clone {
    /// Whether nobody can tell the two apart. For the same pool only; other differences are allowed to be found.
    fn is(&self, other: &Self) -> bool;

    /// Feeds what [`Value::is`] looks at, or part of it.
    fn identity(&self, state: &mut impl Hasher);
}

impl<T: ?Sized> Value for Arc<T> {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }

    fn identity(&self, state: &mut impl Hasher) {
        Arc::as_ptr(self).cast::<()>().hash(state);
    }
}

impl<V: Value> Value for Option<V> {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(mine), Some(theirs)) => mine.is(theirs),
            (None, None) => true,
            _ => false,
        }
    }

    fn identity(&self, state: &mut impl Hasher) {
        match self {
            Some(value) => value.identity(state),
            None => state.write_u8(0),
        }
    }
}

impl<K, V> Value for SharedMap<K, V>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn identity(&self, state: &mut impl Hasher) {
        self.identify(state);
    }
}

macro_rules! plain {
    ($($plain:ty),*) => {$(
        impl Value for $plain {
            fn is(&self, other: &Self) -> bool {
                self == other
            }

            fn identity(&self, state: &mut impl Hasher) {
                self.hash(state);
            }
        }
    )*};
}

plain!((), bool, u8, u16, u32, u64, usize);
