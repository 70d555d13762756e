//! Validated xDS resources, under Envoy's own names.
//!
//! `validate` is the only room where protobuf becomes one of them. A value of these types is fit to serve; a proto that is
//! not becomes a [`ResourceError`] naming each offending field.

pub mod access_log;
pub mod cluster;
pub mod collector;
pub mod cors;
pub mod dns_discovery;
pub mod endpoint;
pub mod ext_authz;
pub mod extension_config;
pub mod fault;
pub mod format;
pub mod hash_policy;
pub mod header;
pub mod http_connection_manager;
pub mod jwt_authn;
pub mod listener;
pub mod local_rate_limit;
pub mod matcher;
pub mod mesh;
pub mod name_table;
pub mod outlier_detection;
pub mod rbac;
pub mod retry;
pub mod route;
pub mod secret;
pub mod tcp_proxy;
pub mod telemetry;
pub mod tls;
pub mod tracing;

mod error;

pub use error::{FieldError, FieldNote, FieldPath, RefusedRoute, ResourceError};
