//! All entries of a map.

use std::slice;

use crate::node::{Child, Node};

/// The entries of a [`SharedMap`](crate::SharedMap).
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    entries: slice::Iter<'a, (K, V)>,
    /// Children that are still to be visited, by level.
    pending: Vec<slice::Iter<'a, Child<K, V>>>,
}

impl<'a, K, V> Iter<'a, K, V> {
    pub(crate) fn of(entries: &'a [(K, V)]) -> Self {
        Self { entries: entries.iter(), pending: Vec::new() }
    }

    pub(crate) fn below(node: &'a Node<K, V>) -> Self {
        let children = node.children();
        let pending = if children.is_empty() { Vec::new() } else { vec![children.iter()] };
        Self { entries: node.entries().iter(), pending }
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
                Some(Some(child)) => {
                    self.entries = child.entries().iter();
                    self.pending.push(child.children().iter());
                }
                Some(None) => {}
                None => {
                    self.pending.pop();
                }
            }
        }
    }
}
