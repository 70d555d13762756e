//! What a certificate authority may answer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| orlop_identity::fuzz::answer(bytes));
