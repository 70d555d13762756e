//! All entries of a map.

use std::slice;
use std::sync::Arc;

use crate::node::Node;

/// The entries of a [`SharedMap`](crate::SharedMap).
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    entries: slice::Iter<'a, (K, V)>,
    /// Children that are still to be visited, by level.
    pending: Vec<slice::Iter<'a, Arc<Node<K, V>>>>,
}

impl<'a, K, V> Iter<'a, K, V> {
    pub(crate) fn new(root: Option<&'a Node<K, V>>) -> Self {
        Self {
            entries: root.map_or(&[][..], Node::entries).iter(),
            pending: root.map(|root| root.children().iter()).into_iter().collect(),
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            match self.pending.last_mut()?.next() {
                Some(child) => {
                    self.entries = child.entries().iter();
                    self.pending.push(child.children().iter());
                }
                None => {
                    self.pending.pop();
                }
            }
        }
    }
}
