//! Durations, addresses, ranges and fractions.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, CidrRange, ConfigSource, RuntimeFractionalPercent, SocketAddress, address, config_source,
    socket_address,
};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf;
use ipnet::IpNet;

use super::at::{At, is_set, no_effect, refuse_set};

/// Text that may be left out. Envoy takes empty text for none inside of a `oneof` too; istiod writes `path_redirect: ""`.
pub(super) fn optional_text(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

/// A duration, not negative.
pub(super) fn duration(value: protobuf::Duration, at: &At<'_>) -> Option<Duration> {
    let protobuf::Duration { seconds, nanos } = value;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => at.refuse("is negative"),
    }
}

/// A field that may be left out.
pub(super) fn optional_duration(value: Option<protobuf::Duration>, at: &At<'_>) -> Option<Option<Duration>> {
    value.map(|value| duration(value, at)).map_or(Some(None), |value| value.map(Some))
}

/// A timeout: left out it is `default`; an explicit 0 is none at all.
pub(super) fn timeout(
    value: Option<protobuf::Duration>,
    default: Option<Duration>,
    at: &At<'_>,
) -> Option<Option<Duration>> {
    match value {
        None => Some(default),
        Some(value) => duration(value, at).map(|value| (!value.is_zero()).then_some(value)),
    }
}

pub(super) fn port(value: u32, at: &At<'_>) -> Option<u16> {
    u16::try_from(value).ok().or_else(|| at.refuse(format!("{value} is not a port")))
}

/// An IP address and port. Names, pipes and internal addresses are refused.
pub(super) fn socket_addr(value: Address, at: &At<'_>) -> Option<SocketAddr> {
    match at.required(value.address)? {
        address::Address::SocketAddress(value) => socket_address(value, &at.field("socket_address")),
        address::Address::Pipe(_) => at.field("pipe").refuse("is not supported"),
        address::Address::EnvoyInternalAddress(_) => {
            at.field("envoy_internal_address").refuse("is not supported (HBONE)")
        }
    }
}

pub(super) fn socket_address(value: SocketAddress, at: &At<'_>) -> Option<SocketAddr> {
    let SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = value;
    no_effect!(at; "is of listeners that are bound; none is"; ipv4_compat);
    refuse_set!(at; protocol, resolver_name, network_namespace_filepath);
    let ip = address
        .parse::<IpAddr>()
        .ok()
        .or_else(|| at.field("address").refuse(format!("{address:?} is not an IP address")));
    let port = match port_specifier {
        None => Some(0),
        Some(socket_address::PortSpecifier::PortValue(value)) => port(value, &at.field("port_value")),
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            at.field("named_port").refuse("is not supported")
        }
    };
    Some(SocketAddr::new(ip?, port?))
}

pub(super) fn cidr(value: CidrRange, at: &At<'_>) -> Option<IpNet> {
    let CidrRange { address_prefix, prefix_len } = value;
    let length = prefix_len.map_or(0, |length| length.value);
    let net = address_prefix
        .parse::<IpAddr>()
        .ok()
        .and_then(|address| IpNet::new(address, u8::try_from(length).ok()?).ok())
        .map(|net| net.trunc());
    net.or_else(|| at.refuse(format!("{address_prefix}/{length} is not an address range")))
}

/// The default of a runtime fraction in parts per million; no runtime overrides it here.
pub(super) fn per_million(value: &RuntimeFractionalPercent, at: &At<'_>) -> Option<u32> {
    let RuntimeFractionalPercent { default_value, runtime_key } = value;
    let runtime_key = runtime_key.as_str();
    no_effect!(at; "names a key of Envoy's runtime, and there is none"; runtime_key);
    fraction((*default_value).unwrap_or_default(), &at.field("default_value"))
}

/// A fraction in parts per million.
pub(super) fn fraction(value: FractionalPercent, at: &At<'_>) -> Option<u32> {
    let FractionalPercent { numerator, denominator } = value;
    let factor = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return at.field("denominator").refuse("is unknown"),
    };
    Some(numerator.saturating_mul(factor).min(1_000_000))
}

/// Resources are asked for where the node gets all of its configuration; another source is refused.
pub(super) fn expect_own_source(source: Option<ConfigSource>, at: &At<'_>) {
    let Some(source) = source else { return };
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version, config_source_specifier } =
        source;
    no_effect!(at; "does not matter: what has not come is waited for without limit"; initial_fetch_timeout);
    no_effect!(at; "can only be v3"; resource_api_version);
    refuse_set!(at; authorities);
    match config_source_specifier {
        Some(config_source::ConfigSourceSpecifier::Ads(_)) => {
            at.field("ads").no_effect("is where everything comes from");
        }
        Some(config_source::ConfigSourceSpecifier::Self_(_)) => {
            at.field("self").no_effect("is where everything comes from");
        }
        Some(config_source::ConfigSourceSpecifier::PathConfigSource(_)) => {
            at.field("path_config_source")
                .no_effect("is the directory of a node that is configured from files, all of which it reads");
        }
        None => {}
        Some(config_source::ConfigSourceSpecifier::Path(path)) if !is_set(&path) => {}
        Some(config_source::ConfigSourceSpecifier::Path(_)) => {
            let _: Option<()> = at.field("path").refuse("is not supported");
        }
        Some(config_source::ConfigSourceSpecifier::ApiConfigSource(_)) => {
            let _: Option<()> = at.field("api_config_source").refuse("is not supported");
        }
    }
}
