//! `istio.networking.nds.v1.NameTable`: the names that a workload's resolver answers for by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// `NameTable`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NameTable {
    /// By fully qualified host: lower case, without a final dot. The first label may be `*`, for any one or more labels.
    pub hosts: BTreeMap<Box<str>, NameInfo>,
}

/// `NameTable.NameInfo`.
#[derive(Debug, PartialEq, Eq)]
pub struct NameInfo {
    /// In order, of both families. None is a host that exists and has no address.
    pub ips: Box<[IpAddr]>,
    /// The Kubernetes service, whose shorter names follow from it (`web`, `web.shop`, `web.shop.svc`); `None` for a host
    /// that has one name only.
    pub kubernetes: Option<KubernetesName>,
}

/// What the shorter names of a Kubernetes service are made of, in lower case.
#[derive(Debug, PartialEq, Eq)]
pub struct KubernetesName {
    /// `shortname`: `web`; for one pod of a headless service `web-0.web`.
    pub shortname: Box<str>,
    /// `namespace`.
    pub namespace: Box<str>,
}
