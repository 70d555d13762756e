//! What a workload asks for.

use std::collections::BTreeSet;

/// The resources that a workload wants by name now. Clusters, listeners, the name table and the proxy
/// configuration come without being asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// `ClusterLoadAssignment` names: the EDS service name of each EDS cluster.
    pub endpoints: BTreeSet<String>,
    /// `RouteConfiguration` names: those that listeners refer to by RDS.
    pub routes: BTreeSet<String>,
    /// `Secret` names: those that TLS contexts refer to by SDS over ADS.
    pub secrets: BTreeSet<String>,
    /// `TypedExtensionConfig` names: filters that listeners take by ECDS.
    pub extensions: BTreeSet<String>,
}
