//! A persistent map whose equal parts are one allocation, however many maps have them: [`SharedMap`].
//!
//! A node carries hundreds of workloads whose configurations are nearly the same. Each of them has a map of its own, a trie
//! over the hashes of the keys (P. Bagwell, "Ideal Hash Trees", 2001) with leaves of several entries, which takes little more
//! than the entries themselves. The shape of a trie depends on its content alone, and a [`Pool`] finds for each new part
//! an equal one that is alive (hash consing). So equal maps are the same pointer, a clone costs nothing, and the difference
//! of two maps is found by walking only where they differ.
//!
//! The owner of the maps owns the pool and is the only one who changes them; anybody may read a clone, on any thread. The
//! pool keeps nothing alive.

mod build;
mod diff;
mod iter;
mod map;
mod memory;
mod node;
mod pool;
mod value;

pub use diff::Change;
pub use iter::Iter;
pub use map::{SharedMap, SharedSet};
pub use pool::Pool;
pub use value::Value;
