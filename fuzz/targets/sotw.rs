//! The state-of-the-world protocol's state machine against a server and a consumer that do as the bytes say.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| orlop_xds_client::fuzz::sotw(bytes));
