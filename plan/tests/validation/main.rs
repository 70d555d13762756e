//! What becomes of resources when they are validated: what is taken from them, and what is refused by name.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail the test"
)]

mod access_log;
mod bad_input;
mod cluster;
mod dns;
mod endpoint;
mod extension_config;
mod header;
mod jwt_authn;
mod matcher;
mod name_table;
mod notes;
mod outlier_detection;
mod retry;
mod route;
mod secret;
mod support;
mod tls;
mod tracing;
mod unsupported_routes;
mod virtual_host;
