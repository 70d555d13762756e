//! A file of the watched directory, as YAML, JSON and protobuf.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use orlop_proto::Descriptors;

static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| Descriptors::load().expect("they are built in"));
const RESPONSE: &str = "type.googleapis.com/envoy.service.discovery.v3.DiscoveryResponse";

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(json) = serde_json::from_str(text)
        && let Ok(message) = DESCRIPTORS.from_json(RESPONSE, &json)
    {
        // What was read can be printed, and means the same when it is read again.
        let printed = DESCRIPTORS.to_json(&message).expect("what was read can be printed");
        assert_eq!(DESCRIPTORS.from_json(RESPONSE, &printed).expect("what was printed can be read"), message);
    }
    let _ = DESCRIPTORS.decode(RESPONSE, serde_norway::Deserializer::from_str(text));
});
