//! The routes of a virtual host, and the search for the first one that takes a request. Where there are many, an index by
//! their paths says which of them may, and only those are asked.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use super::RequestHead;
use crate::resource::route::{PathMatch, Route};

/// Fewer routes are asked one by one in less time than the index is.
const WORTH_AN_INDEX: usize = 16;

/// `VirtualHost.routes`, in order.
#[derive(Debug, Default)]
pub struct Routes {
    in_order: Vec<Arc<Route>>,
    index: Option<Box<PathIndex>>,
}

/// Positions of routes, ascending, by what of a path they ask for.
#[derive(Debug, Default)]
struct PathIndex {
    exact: HashMap<Vec<u8>, Vec<usize>>,
    prefixes: HashMap<Vec<u8>, Vec<usize>>,
    /// The lengths of prefixes, ascending.
    lengths: Vec<usize>,
    /// What can only be asked.
    others: Vec<usize>,
}

impl From<Vec<Arc<Route>>> for Routes {
    fn from(in_order: Vec<Arc<Route>>) -> Self {
        let index = (in_order.len() >= WORTH_AN_INDEX).then(|| Box::new(PathIndex::new(&in_order)));
        Self { in_order, index }
    }
}

impl Deref for Routes {
    type Target = [Arc<Route>];

    fn deref(&self) -> &[Arc<Route>] {
        &self.in_order
    }
}

impl Routes {
    /// The first that takes `request`. `random` decides runtime fractions.
    pub fn find(&self, request: &RequestHead<'_>, random: u64) -> Option<&Arc<Route>> {
        let takes = |route: &Arc<Route>| route.route_match.matches(request, random);
        let Some(index) = &self.index else { return self.iter().find(|route| takes(route)) };
        let mut first = self.len();
        for positions in index.may_take(request.path().as_bytes()) {
            let earlier = positions.iter().copied().take_while(|position| *position < first);
            let found = earlier.into_iter().find(|position| self.get(*position).is_some_and(takes));
            first = found.unwrap_or(first);
        }
        self.get(first)
    }
}

impl PathIndex {
    fn new(routes: &[Arc<Route>]) -> Self {
        let mut this = Self::default();
        for (position, route) in routes.iter().enumerate() {
            let wanted = &route.route_match;
            let positions = match &wanted.path {
                PathMatch::Exact(path) if wanted.case_sensitive => {
                    this.exact.entry(path.as_bytes().to_vec()).or_default()
                }
                PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix)
                    if wanted.case_sensitive =>
                {
                    this.lengths.push(prefix.len());
                    this.prefixes.entry(prefix.as_bytes().to_vec()).or_default()
                }
                PathMatch::Exact(_)
                | PathMatch::Prefix(_)
                | PathMatch::PathSeparatedPrefix(_)
                | PathMatch::Regex(_) => &mut this.others,
            };
            positions.push(position);
        }
        this.lengths.sort_unstable();
        this.lengths.dedup();
        this
    }

    /// Whose path it may be, each list in order.
    fn may_take<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a [usize]> {
        let prefixes = self.lengths.iter().map_while(|length| path.get(..*length));
        let by_prefix = prefixes.filter_map(|prefix| self.prefixes.get(prefix));
        self.exact.get(path).into_iter().chain(by_prefix).chain([&self.others]).map(Vec::as_slice)
    }
}
