//! What can go wrong between messages and their JSON form.

use thiserror::Error;

/// The descriptors that this build carries cannot be read. The build is at fault, not its input.
#[derive(Debug, Error)]
pub enum DescriptorsError {
    /// The compressed set is damaged.
    #[error("the built-in descriptors do not inflate: {0}")]
    Inflate(miniz_oxide::inflate::DecompressError),
    /// The set does not hold together.
    #[error("the built-in descriptors are not a valid set")]
    Pool(#[from] prost_reflect::DescriptorError),
}

/// A text does not describe a message of the wanted type. `E` is the error of the text's format and
/// says where it knows lines.
#[derive(Debug, Error)]
pub enum DecodeError<E: std::error::Error + 'static> {
    /// The descriptors have no such message.
    #[error("unknown type '{type_url}'")]
    UnknownType {
        /// As it was asked for.
        type_url: String,
    },
    /// The value at `path` does not fit its field, or no such field or type exists.
    #[error("{}", with_path(path, source))]
    Invalid {
        /// For example `filter_chains[0].filters[1].typed_config`.
        path: String,
        /// The reason.
        source: E,
    },
}

/// Errors of YAML name most paths themselves.
fn with_path<E: std::error::Error>(path: &str, source: &E) -> String {
    let text = source.to_string();
    if text.starts_with(path) { text } else { format!("{path}: {text}") }
}

/// JSON and a message do not convert into each other.
#[derive(Debug, Error)]
pub enum JsonError {
    /// A message of this type cannot be read or written: the descriptors do not have it.
    #[error("{path}: unknown type '{type_url}'")]
    UnknownType {
        /// The type URL as found.
        type_url: String,
        /// Where the type was named; `.` is the message itself.
        path: String,
    },
    /// JSON that does not fit the message.
    #[error("{path}: {source}")]
    Invalid {
        /// For example `filter_chains[0].filters[1].typed_config`.
        path: String,
        /// The reason.
        source: serde_json::Error,
    },
    /// The bytes of the `Any` are not a message of its type.
    #[error("the value of '{type_url}' is malformed")]
    Malformed {
        /// The type URL of the `Any`.
        type_url: String,
        /// The reason.
        source: prost::DecodeError,
    },
    /// The message has no JSON form.
    #[error("'{type_url}' has no JSON form")]
    Serialize {
        /// The type URL of the `Any`.
        type_url: String,
        /// The reason.
        source: serde_json::Error,
    },
}
