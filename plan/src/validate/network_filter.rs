//! Network filters.

use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use orlop_proto::metadata_exchange::MetadataExchange;
use orlop_proto::stats::PluginConfig;
use prost::Name;

use super::at::{At, no_effect};
use super::decode::Extension;
use super::ext_authz::network_ext_authz;
use super::http_connection_manager::http_connection_manager;
use super::rbac::network_rbac;
use super::tcp_proxy::tcp_proxy;
use super::telemetry::stats;
use crate::resource::listener::{NetworkFilter, TerminalFilter};

pub(super) enum Parsed {
    Terminal(TerminalFilter),
    Other(NetworkFilter),
    /// Does nothing as it is configured.
    Nothing,
}

pub(super) fn network_filter(value: Filter, at: &At<'_>) -> Option<Parsed> {
    let Filter { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at_config = at.field("typed_config");
    let extension = match config_type {
        Some(filter::ConfigType::TypedConfig(any)) => Extension::open(any, &at_config)?,
        Some(filter::ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").refuse(format!("of filter {name:?} is not supported"));
        }
        None => return at_config.refuse(format!("of filter {name:?} is required")),
    };
    match extension.type_name() {
        known if known == HttpConnectionManager::full_name() => {
            let manager = http_connection_manager(extension.message(&at_config)?, &at_config)?;
            Some(Parsed::Terminal(TerminalFilter::HttpConnectionManager(Arc::new(manager))))
        }
        known if known == TcpProxy::full_name() => {
            let tcp_proxy = tcp_proxy(extension.message(&at_config)?, &at_config)?;
            Some(Parsed::Terminal(TerminalFilter::TcpProxy(Arc::new(tcp_proxy))))
        }
        known if known == Rbac::full_name() => {
            let rbac = network_rbac(extension.message(&at_config)?, &at_config)?;
            Some(rbac.map_or(Parsed::Nothing, |rbac| Parsed::Other(NetworkFilter::Rbac(rbac.into()))))
        }
        known if known == PluginConfig::full_name() => {
            let stats = stats(&extension, &at_config)?;
            Some(Parsed::Other(NetworkFilter::Stats(stats.into())))
        }
        known if known == ExtAuthz::full_name() => {
            network_ext_authz(extension.message(&at_config)?, &at_config)?;
            Some(Parsed::Nothing)
        }
        _ if is_metadata_exchange(&extension, &at_config) => {
            Some(Parsed::Other(NetworkFilter::MetadataExchange))
        }
        _ => extension.refuse("filter", &name, &at_config),
    }
}

/// The exchange of peer metadata needs the ALPN `istio-peer-exchange`; its fields matter there alone.
pub(super) fn is_metadata_exchange(extension: &Extension, at: &At<'_>) -> bool {
    if extension.type_name() != MetadataExchange::full_name() {
        return false;
    }
    extension.expect_fields(&["protocol", "enable_discovery", "additional_labels"], at);
    at.no_effect("needs the ALPN istio-peer-exchange, which is neither offered nor chosen");
    true
}
