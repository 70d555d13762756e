//! The file with the last good configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orlop_agent::last_good::Contents;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contents) = Contents::parse(bytes) {
        let _ = contents.workload("sidecar~10.0.0.1~a.x~x.svc");
    }
});
