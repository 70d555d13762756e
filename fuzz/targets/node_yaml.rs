//! `node.yaml`: an error names line and column.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = orlop_agent::config::parse(Path::new("node.yaml"), text) {
        assert!(error.to_string().starts_with("node.yaml:"), "{error}");
    }
});
