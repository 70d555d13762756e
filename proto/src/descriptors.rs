//! The descriptor pool: everything that a sidecar's configuration can carry, plus our own definitions.
//!
//! `descriptors.bin` is a deflated `FileDescriptorSet` that `cargo xtask build-descriptors` trims from the set
//! that `envoy-types` publishes; the definitions of this crate are added when the pool is built.

use miniz_oxide::inflate::decompress_to_vec_with_limit;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use crate::DescriptorsError;

static ENVOY: &[u8] = include_bytes!("descriptors.bin");
static OWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/own_descriptors.bin"));

/// Far above the set's size of two megabytes.
const MAX_INFLATED_BYTES: usize = 16 << 20;

/// The loaded descriptors. Loading takes tens of milliseconds and tens of megabytes, so keep a value while
/// there is something to convert and drop it afterwards.
#[derive(Debug, Clone)]
pub struct Descriptors {
    pool: DescriptorPool,
}

impl Descriptors {
    /// Inflates and links the built-in set.
    pub fn load() -> Result<Self, DescriptorsError> {
        let envoy =
            decompress_to_vec_with_limit(ENVOY, MAX_INFLATED_BYTES).map_err(DescriptorsError::Inflate)?;
        let mut pool = DescriptorPool::decode(envoy.as_slice())?;
        pool.decode_file_descriptor_set(OWN)?;
        Ok(Self { pool })
    }

    /// The pool itself, for reflection.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The message that `type_url` names, whatever stands before its last slash.
    pub fn message(&self, type_url: &str) -> Option<MessageDescriptor> {
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        self.pool.get_message_by_name(name)
    }
}
