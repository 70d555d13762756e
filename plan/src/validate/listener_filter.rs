//! Listener filters, and the ports that they leave alone.

use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use envoy_types::pb::envoy::config::listener::v3::{
    ListenerFilter, ListenerFilterChainMatchPredicate as Predicate, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use crate::resource::listener::{ListenerFilters, PortRanges};

/// Of two, only one could say where it does not look.
const TWICE: &str = "stands in the list twice";

pub(super) fn listener_filters(values: Vec<ListenerFilter>, at: &At<'_>) -> Option<ListenerFilters> {
    let mut filters = ListenerFilters::default();
    let mut understood = true;
    for (i, value) in values.into_iter().enumerate() {
        understood &= listener_filter(value, &mut filters, &at.index(i)).is_some();
    }
    understood.then_some(filters)
}

fn listener_filter(value: ListenerFilter, filters: &mut ListenerFilters, at: &At<'_>) -> Option<()> {
    let ListenerFilter { name, filter_disabled, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    let off = match filter_disabled {
        None => PortRanges::default(),
        Some(predicate) => {
            understood(&predicate, &at.field("filter_disabled"))?;
            PortRanges::where_true(|port| holds(&predicate, port))
        }
    };
    let at_config = at.field("typed_config");
    let extension = match config_type {
        Some(listener_filter::ConfigType::TypedConfig(any)) => Extension::open(any, &at_config)?,
        Some(listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").refuse(format!("of filter {name:?} is not supported"));
        }
        None => return at_config.refuse(format!("of filter {name:?} is required")),
    };
    match extension.type_name() {
        known if known == OriginalDst::full_name() => {
            let OriginalDst {} = extension.message(&at_config)?;
            filters.original_dst = true;
        }
        known if known == TlsInspector::full_name() => {
            let TlsInspector {
                enable_ja3_fingerprinting,
                initial_read_buffer_size,
                enable_ja4_fingerprinting,
                max_client_hello_size,
                close_connection_on_client_hello_parsing_errors,
            } = extension.message(&at_config)?;
            no_effect!(at_config; "bounds Envoy's own buffer"; initial_read_buffer_size, max_client_hello_size);
            refuse_set!(
                at_config; enable_ja3_fingerprinting, enable_ja4_fingerprinting,
                close_connection_on_client_hello_parsing_errors
            );
            if std::mem::replace(&mut filters.tls_inspector, true) {
                return at.refuse(TWICE);
            }
            filters.tls_inspector_off = off;
        }
        known if known == HttpInspector::full_name() => {
            let HttpInspector {} = extension.message(&at_config)?;
            if std::mem::replace(&mut filters.http_inspector, true) {
                return at.refuse(TWICE);
            }
            filters.http_inspector_off = off;
        }
        _ => return extension.refuse("listener filter", &name, &at_config),
    }
    Some(())
}

/// Whether every part of a predicate is known.
fn understood(predicate: &Predicate, at: &At<'_>) -> Option<()> {
    match predicate.rule.as_ref() {
        Some(Rule::OrMatch(set) | Rule::AndMatch(set)) => {
            set.rules.iter().try_for_each(|rule| understood(rule, at))
        }
        Some(Rule::NotMatch(rule)) => understood(rule, at),
        Some(Rule::AnyMatch(_) | Rule::DestinationPortRange(_)) => Some(()),
        None => at.refuse("is empty"),
    }
}

fn holds(predicate: &Predicate, port: u16) -> bool {
    match predicate.rule.as_ref() {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&i32::from(port)),
        None => false,
    }
}
