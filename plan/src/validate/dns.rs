//! The part of `cluster.v3.Cluster` that is about names.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::cluster::{DnsLookupFamily as ProtoFamily, RefreshRate};
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::google::protobuf;
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use super::endpoint::load_assignment;
use super::scalar::{duration, optional_duration};
use crate::resource::dns_discovery::{DnsDiscovery, DnsLookupFamily};
use crate::resource::endpoint::EndpointAbout;

/// Envoy's `dns_refresh_rate`.
const DEFAULT_REFRESH_RATE: Duration = Duration::from_secs(5);
/// What stands in the place of a name.
const UNSPECIFIED: &str = "0.0.0.0";

/// The fields of a cluster that say how names are resolved.
#[derive(Clone)]
pub(super) struct DnsSettings {
    pub(super) dns_refresh_rate: Option<protobuf::Duration>,
    pub(super) dns_jitter: Option<protobuf::Duration>,
    pub(super) dns_failure_refresh_rate: Option<RefreshRate>,
    pub(super) respect_dns_ttl: bool,
    pub(super) dns_lookup_family: i32,
    pub(super) typed_dns_resolver_config: Option<TypedExtensionConfig>,
}

impl DnsSettings {
    /// Of a cluster that resolves nothing.
    pub(super) fn have_no_effect(self, at: &At<'_>) {
        let Self {
            dns_refresh_rate,
            dns_jitter,
            dns_failure_refresh_rate,
            respect_dns_ttl,
            dns_lookup_family,
            typed_dns_resolver_config,
        } = self;
        no_effect!(
            at; "is of clusters that resolve names"; dns_refresh_rate, dns_jitter, dns_failure_refresh_rate,
            respect_dns_ttl, dns_lookup_family, typed_dns_resolver_config
        );
    }
}

pub(super) fn dns_discovery(
    logical: bool,
    settings: DnsSettings,
    mut endpoints: ClusterLoadAssignment,
    at: &At<'_>,
) -> Option<DnsDiscovery> {
    let DnsSettings {
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        typed_dns_resolver_config,
    } = settings;
    if let Some(resolver) = typed_dns_resolver_config {
        dns_resolver(resolver, &at.field("typed_dns_resolver_config"))?;
    }
    let refresh_rate = positive(dns_refresh_rate, DEFAULT_REFRESH_RATE, &at.field("dns_refresh_rate"));
    let jitter = optional_duration(dns_jitter, &at.field("dns_jitter"));
    let family = match ProtoFamily::try_from(dns_lookup_family) {
        Ok(ProtoFamily::Auto) => Some(DnsLookupFamily::Auto),
        Ok(ProtoFamily::V4Only) => Some(DnsLookupFamily::V4Only),
        Ok(ProtoFamily::V6Only) => Some(DnsLookupFamily::V6Only),
        Ok(ProtoFamily::V4Preferred) => Some(DnsLookupFamily::V4Preferred),
        Ok(ProtoFamily::All) => Some(DnsLookupFamily::All),
        Err(_) => at.field("dns_lookup_family").refuse("is unknown"),
    };
    let at_endpoints = at.field("load_assignment");
    let names: Vec<_> = lb_endpoints(&mut endpoints).map(take_name).collect();
    if names.iter().any(|name| name.as_ref().is_some_and(String::is_empty)) {
        return at_endpoints.field("endpoints").refuse("has an endpoint without an address");
    }
    if logical && names.len() != 1 {
        return at_endpoints.field("endpoints").refuse("has not exactly one endpoint, as LOGICAL_DNS needs");
    }
    let mut endpoints = load_assignment(endpoints, &at_endpoints)?;
    let mut all = endpoints.localities.iter().flat_map(|locality| &locality.endpoints);
    if all.any(|endpoint| !endpoint.about.additional_addresses.is_empty()) {
        return at_endpoints.field("endpoints").refuse("has additional addresses beside a name");
    }
    let names: Vec<_> = names.into_iter().collect::<Option<_>>()?;
    let converted = endpoints.localities.iter_mut().flat_map(|locality| &mut locality.endpoints);
    for (endpoint, name) in converted.zip(&names).filter(|(endpoint, _)| endpoint.about.hostname.is_empty()) {
        endpoint.about = Arc::new(EndpointAbout { hostname: name.clone(), ..(*endpoint.about).clone() });
    }
    let refresh_rate = refresh_rate?;
    let failure_refresh_rate = match dns_failure_refresh_rate {
        None => (refresh_rate, refresh_rate),
        Some(RefreshRate { base_interval, max_interval }) => {
            let at = at.field("dns_failure_refresh_rate");
            let base = positive(base_interval, refresh_rate, &at.field("base_interval"))?;
            (base, positive(max_interval, base * 10, &at.field("max_interval"))?.max(base))
        }
    };
    Some(DnsDiscovery {
        logical,
        names,
        endpoints,
        family: family?,
        refresh_rate,
        respect_ttl: respect_dns_ttl,
        jitter: jitter?.unwrap_or_default(),
        failure_refresh_rate,
    })
}

/// Envoy's library for questions, as istiod writes it: who is asked is not said there.
fn dns_resolver(value: TypedExtensionConfig, at: &At<'_>) -> Option<()> {
    let TypedExtensionConfig { name, typed_config } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at = at.field("typed_config");
    let extension = Extension::open(at.required(typed_config)?, &at)?;
    if extension.type_name() != CaresDnsResolverConfig::full_name() {
        return extension.refuse("resolver", &name, &at);
    }
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration,
        reinit_channel_on_timeout,
        qcache_max_ttl,
    } = extension.message(&at)?;
    no_effect!(
        at; "is of the library that Envoy asks resolvers with"; udp_max_queries, query_timeout_seconds,
        query_tries, rotate_nameservers, edns0_max_payload_size, max_udp_channel_duration,
        reinit_channel_on_timeout, qcache_max_ttl
    );
    refuse_set!(
        at; resolvers, use_resolvers_as_fallback, filter_unroutable_families, dns_resolver_options
    );
    Some(())
}

fn lb_endpoints(of: &mut ClusterLoadAssignment) -> impl Iterator<Item = &mut LbEndpoint> {
    of.endpoints.iter_mut().flat_map(|locality| &mut locality.lb_endpoints)
}

/// The name of an endpoint; with an address in its place, the rest is as in any other assignment. `None` where it has no
/// socket address, which is found there.
fn take_name(endpoint: &mut LbEndpoint) -> Option<String> {
    let HostIdentifier::Endpoint(endpoint) = endpoint.host_identifier.as_mut()? else { return None };
    let Address::SocketAddress(address) = endpoint.address.as_mut()?.address.as_mut()? else { return None };
    Some(std::mem::replace(&mut address.address, UNSPECIFIED.to_owned()))
}

fn positive(value: Option<protobuf::Duration>, default: Duration, at: &At<'_>) -> Option<Duration> {
    match value {
        None => Some(default),
        Some(value) => match duration(value, at)? {
            Duration::ZERO => at.refuse("must be above 0"),
            time => Some(time),
        },
    }
}
