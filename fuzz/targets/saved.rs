//! The file with the last good configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orlop_agent::last_good::Contents;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // Behind a header that fits, else nothing ever comes past the checksum.
    let mut file = b"orlop-lg\x01\0\0\0".to_vec();
    file.extend((bytes.len() as u64).to_le_bytes());
    file.extend(crc32fast::hash(bytes).to_le_bytes());
    file.extend(bytes);
    read(&file);
});

fn read(file: &[u8]) {
    if let Ok(contents) = Contents::parse(file) {
        let _ = contents.workload("sidecar~10.0.0.1~a.x~x.svc");
    }
}
