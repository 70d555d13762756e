//! From protobuf to plans, by way of the public interface.
#![expect(deprecated, reason = "a control plane may still set what the protocol discourages")]

mod build;
mod capture;
mod captured_verdicts;
mod chain_matching;
mod chain_properties;
mod header_matching;
mod refused_fields;
mod regular_expressions;
mod route_matching;
mod route_properties;
mod snapshot_store;
mod warming;
mod weights;
