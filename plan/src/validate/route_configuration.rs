//! `route.v3.RouteConfiguration` and its virtual hosts.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration as Proto, VirtualHost as ProtoVirtualHost,
};

use super::at::{At, is_set, no_effect, refuse_set};
use super::header::{Mutations, header_name};
use super::per_filter_config::{per_filter_config, refuse_per_filter_config};
use super::retry::retry_policy;
use super::route::route;
use crate::resource::route::{Domain, RouteConfiguration, VirtualHost};
use crate::route_match::VirtualHostIndex;

/// Envoy's limit of a direct response's body in bytes.
const DEFAULT_MAX_BODY: usize = 4096;

pub(super) fn route_configuration(value: Proto, at: &At<'_>) -> Option<RouteConfiguration> {
    let Proto {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = value;
    no_effect!(at; "does not matter: a route to a cluster that is not there is answered with cluster_not_found_response_code"; validate_clusters);
    no_effect!(at; "has no reader"; metadata);
    refuse_set!(
        at; vhds, cluster_specifier_plugins, request_mirror_policies, vhost_header,
        ignore_path_parameters_in_path_matching, route_specifiers
    );
    refuse_per_filter_config(typed_per_filter_config, at);
    no_effect!(at; "bounds the bodies of direct responses, which are checked"; max_direct_response_body_size_bytes);
    let max_body = max_direct_response_body_size_bytes
        .map_or(DEFAULT_MAX_BODY, |limit| usize::try_from(limit.value).unwrap_or(usize::MAX));
    let headers = Mutations {
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
    }
    .convert(at);
    let internal_only_headers =
        at.field("internal_only_headers").each(internal_only_headers, |name, at| header_name(&name, at));
    let virtual_hosts = at
        .field("virtual_hosts")
        .each(virtual_hosts, |host, at| virtual_host(host, max_body, at).map(Arc::new))?;
    let index = match VirtualHostIndex::new(&virtual_hosts) {
        Ok(index) => index,
        Err(duplicate) => return at.field("virtual_hosts").refuse(duplicate.to_string()),
    };
    Some(RouteConfiguration {
        name,
        virtual_hosts,
        headers: headers?,
        most_specific_header_mutations_wins,
        ignore_port_in_host_matching,
        internal_only_headers: internal_only_headers?,
        index,
    })
}

fn virtual_host(value: ProtoVirtualHost, max_body: usize, at: &At<'_>) -> Option<VirtualHost> {
    let ProtoVirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy: retry,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = value;
    no_effect!(at; "feeds statistics alone"; virtual_clusters);
    no_effect!(at; "has no reader"; metadata);
    // They say which route is a request's.
    refuse_set!(at; matcher, route_specifiers);
    let own = at.apart(|| {
        refuse_set!(
            at; rate_limits, cors, retry_policy_typed_config, hedge_policy, include_is_timeout_retry_header,
            per_request_buffer_limit_bytes, request_body_buffer_limit, request_mirror_policies
        );
        let filters = per_filter_config(typed_per_filter_config, at);
        let require_tls = match TlsRequirementType::try_from(require_tls) {
            Ok(TlsRequirementType::None) => Some(false),
            Ok(TlsRequirementType::All) => Some(true),
            _ => at.field("require_tls").unsupported("is not supported"),
        };
        let headers = Mutations {
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        }
        .convert(at);
        let retry_policy = match retry {
            None => Some(None),
            Some(policy) => {
                retry_policy(policy, &at.field("retry_policy")).map(|policy| Some(Arc::new(policy)))
            }
        };
        Some((require_tls?, headers?, retry_policy?, filters?))
    });
    let domains = if domains.is_empty() {
        at.field("domains").refuse("is required")
    } else {
        at.field("domains").each(domains, |domain: String, at| parse_domain(&domain, at))
    };
    let routes = at.field("routes").each(routes, |value, at| route(value, max_body, at).map(Arc::new));
    let (own, unsupported) = match own? {
        Ok(own) => (own, Vec::new()),
        Err(fields) => {
            at.refuse_route(&fields, &format!("every route of {name:?}"));
            (Default::default(), fields)
        }
    };
    let (require_tls, headers, retry_policy, filters) = own;
    Some(VirtualHost {
        name,
        domains: domains?,
        routes: routes?.into(),
        require_tls,
        retry_policy,
        include_request_attempt_count,
        include_attempt_count_in_response,
        unsupported,
        headers,
        filters,
    })
}

fn parse_domain(domain: &str, at: &At<'_>) -> Option<Domain> {
    let domain = domain.to_ascii_lowercase();
    if !is_set(&domain) {
        return at.refuse("is empty");
    }
    Some(match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
        (Some(""), _) => Domain::Any,
        (Some(suffix), _) => Domain::Suffix(suffix.to_owned()),
        (None, Some(prefix)) => Domain::Prefix(prefix.to_owned()),
        (None, None) => Domain::Exact(domain),
    })
}
