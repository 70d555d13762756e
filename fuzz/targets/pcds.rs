//! The bytes of trust bundles, as a control plane may send them.
#![no_main]

mod resource;

use libfuzzer_sys::fuzz_target;
use orlop_proto::ResourceType;

fuzz_target!(|bytes: &[u8]| resource::deliver(ResourceType::ProxyConfig, bytes));
