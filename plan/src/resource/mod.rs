//! Validated xDS resources, under Envoy's own names.
//!
//! The only room where protobuf becomes anything else: `TryFrom` conversions live beside each type, in `*_from_proto`.
//! A value of these types is fit to serve; a proto that is not becomes a [`ResourceError`] naming each offending field.

pub mod cluster;
pub mod endpoint;
pub mod header;
pub mod http_connection_manager;
pub mod listener;
pub mod matcher;
pub mod retry;
pub mod route;
pub mod tcp_proxy;

mod error;

pub use error::{FieldError, FieldPath, ResourceError};
