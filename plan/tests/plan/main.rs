//! From protobuf to plans, by way of the public interface.
#![expect(deprecated, reason = "a control plane may still set what the protocol discourages")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "fields of protobuf messages are Options"
)]

mod build;
mod capture;
mod captured_verdicts;
mod chain_matching;
mod chain_properties;
mod discovered_filters;
mod duplicate_addresses;
mod families;
mod header_matching;
mod incremental;
mod kernel_equals_proxy;
mod modes;
mod mutual_tls;
mod neighbours;
mod policies;
mod reference;
mod refused_fields;
mod regular_expressions;
mod route_cost;
mod route_matching;
mod route_properties;
mod secrets;
mod snapshot_store;
mod warming;
mod weights;
