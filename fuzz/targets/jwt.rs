//! Tokens as clients send them: whatever they are, they are taken apart or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orlop_plan::jwt::Token;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = Token::parse(text) {
        assert!(text.as_bytes().starts_with(token.signed), "{text}");
        assert!(text.contains(token.encoded_payload), "{text}");
    }
});
