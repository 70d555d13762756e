//! `istio.networking.nds.v1.NameTable`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use orlop_proto::nds::NameTable as Proto;
use orlop_proto::nds::name_table::NameInfo as ProtoInfo;

use super::at::{At, no_effect};
use crate::resource::name_table::{KubernetesName, NameInfo, NameTable};

/// The registry whose services have shorter names.
const KUBERNETES: &str = "Kubernetes";
/// RFC 1035, 2.3.4: 255 octets on the wire are 253 in text.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// One tenant's host that cannot be asked for must not keep everybody's names from being updated: it is left out, and the
/// workload's status says so.
pub(super) fn name_table(value: Proto, at: &At<'_>) -> Option<NameTable> {
    let Proto { table } = value;
    let at = at.field("table");
    let mut hosts = BTreeMap::new();
    let mut complete = true;
    for (host, info) in table {
        let at = at.key(&host);
        let Some(info) = name_info(info, &at) else {
            complete = false;
            continue;
        };
        let host = host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase();
        if !is_host(&host) {
            at.not_yet("is not a name that DNS can carry; nothing answers to it");
        } else if hosts.insert(host.into_boxed_str(), info).is_some() {
            at.not_yet("differs from another host in case alone; this one is answered");
        }
    }
    complete.then_some(NameTable { hosts })
}

fn name_info(value: ProtoInfo, at: &At<'_>) -> Option<NameInfo> {
    let ProtoInfo { ips, registry, shortname, namespace, alt_hosts } = value;
    no_effect!(at; "follows from the host, the short name and the namespace"; alt_hosts);
    let ips = at.field("ips").each(ips, |ip, at| {
        ip.parse::<IpAddr>().ok().or_else(|| at.refuse(format!("{ip:?} is not an IP address")))
    })?;
    let is_service = registry == KUBERNETES && !shortname.is_empty() && !namespace.is_empty();
    let kubernetes = is_service.then(|| KubernetesName {
        shortname: shortname.to_ascii_lowercase().into(),
        namespace: namespace.to_ascii_lowercase().into(),
    });
    Some(NameInfo { ips: ips.into(), kubernetes })
}

fn is_host(host: &str) -> bool {
    let rest = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
    };
    host.len() <= LONGEST_NAME && rest.split('.').all(is_label)
}
