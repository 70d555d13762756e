//! The names that the node answers for, as one workload sees them.
//!
//! The table says the full names. What else a workload may call a Kubernetes service follows from them, as in Istio's DNS
//! proxy (`pkg/dns/client`), but is found when it is asked for instead of being spelt out beforehand: the table is one
//! allocation for all workloads that were sent the same.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use orlop_plan::resource::name_table::{NameInfo, NameTable};

/// RFC 1035 section 2.3.4: a name has at most 255 octets, in text one less for each end.
const LONGEST_NAME: usize = 253;

/// The names of one workload.
#[derive(Debug, Clone)]
pub struct Names {
    table: Arc<NameTable>,
    namespace: Box<str>,
    /// `svc.cluster.local`, in which services are `<name>.<namespace>.svc.cluster.local`.
    service_domain: Box<str>,
    /// `.default.svc.cluster.local`: the first search domain of the pod, which its resolver appends before it asks.
    search_suffix: Box<str>,
}

/// A name that is in the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// All its addresses, of both families.
    pub ips: &'a [IpAddr],
    /// How many labels of the question are the name's own; the rest is the search domain.
    pub own_labels: Option<usize>,
}

impl Names {
    /// The table as seen from a namespace. `cluster_domain` is `cluster.local`.
    pub fn new(table: Arc<NameTable>, namespace: &str, cluster_domain: &str) -> Self {
        Self {
            table,
            namespace: namespace.into(),
            service_domain: format!("svc.{cluster_domain}").into(),
            search_suffix: format!(".{namespace}.svc.{cluster_domain}").into(),
        }
    }

    /// Looks for a name in lower case, without a final dot. The most specific wins: the name itself, the name with the
    /// search domain taken off, then wildcards from the longest to the shortest.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return None;
        }
        if let Some(info) = self.by_any_name(name) {
            return Some(Found { ips: &info.ips, own_labels: None });
        }
        // What is in the search domain already is not searched for in it again.
        let searched = name
            .strip_suffix(&*self.search_suffix)
            .filter(|own| !own.ends_with(&*self.search_suffix) && !own.is_empty());
        let own_labels = searched.map(|own| own.split('.').count());
        if let Some(info) = searched.and_then(|own| self.by_any_name(own)) {
            return Some(Found { ips: &info.ips, own_labels });
        }
        let mut pattern = String::with_capacity(name.len() + 2);
        for (dot, _) in name.match_indices('.') {
            let Some(rest) = name.get(dot..) else { continue };
            if let Some(info) = self.wildcard(rest, &mut pattern) {
                return Some(Found { ips: &info.ips, own_labels: None });
            }
            let own = searched.and_then(|own| own.get(dot..));
            if let Some(info) = own.and_then(|own| self.wildcard(own, &mut pattern)) {
                return Some(Found { ips: &info.ips, own_labels });
            }
        }
        None
    }

    /// `rest` begins with a dot.
    fn wildcard(&self, rest: &str, pattern: &mut String) -> Option<&NameInfo> {
        pattern.clear();
        // Writing to a String cannot fail.
        let _ = write!(pattern, "*{rest}");
        self.table.hosts.get(pattern.as_str())
    }

    /// By the full name, or by `name`, `name.namespace` or `name.namespace.svc` of a service.
    fn by_any_name(&self, name: &str) -> Option<&NameInfo> {
        if let Some(info) = self.table.hosts.get(name) {
            return Some(info);
        }
        let domain = &*self.service_domain;
        let rest_of_domain = domain.strip_prefix("svc").unwrap_or_default();
        let mut full = String::with_capacity(name.len() + self.search_suffix.len());
        let mut service = |suffix: std::fmt::Arguments<'_>| {
            full.clear();
            // Writing to a String cannot fail.
            let _ = write!(full, "{name}{suffix}");
            let info = self.table.hosts.get(full.as_str())?;
            // Only services have short names, and only by what they are called, which is not what any host looks like.
            let kubernetes = info.kubernetes.as_ref()?;
            let called = full.strip_suffix(domain)?.strip_suffix('.')?;
            let called = called.strip_suffix(&*kubernetes.namespace)?.strip_suffix('.')?;
            (called == &*kubernetes.shortname).then_some(info)
        };
        if name.strip_suffix(".svc").is_some()
            && let Some(info) = service(format_args!("{rest_of_domain}"))
        {
            return Some(info);
        }
        service(format_args!(".{domain}")).or_else(|| {
            let own = service(format_args!("{}", self.search_suffix))?;
            // `a.b` with the own namespace appended is a name of nothing.
            let kubernetes = own.kubernetes.as_ref()?;
            (*kubernetes.namespace == *self.namespace).then_some(own)
        })
    }
}
