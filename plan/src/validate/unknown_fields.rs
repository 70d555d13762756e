//! Whether decoding a message lost anything.
//!
//! Fields that a message type does not have are dropped when it is decoded, so that what is left is shorter than what came.
//! It is shorter for a map entry with an empty key or value as well (`{"key": {}}`), which Go spells out and prost does
//! not; such entries are told apart here.

use prost::Message;

/// As deep as prost decodes.
const MAX_DEPTH: u32 = 100;

/// The number of bytes of `bytes` that are not in the `message` which was decoded from them.
pub(super) fn unknown_bytes<M: Message>(message: &M, bytes: &[u8]) -> usize {
    if message.encoded_len() >= bytes.len() {
        return 0;
    }
    substance(bytes, MAX_DEPTH).saturating_sub(substance(&message.encode_to_vec(), MAX_DEPTH))
}

/// The bytes of keys and values at any depth, without length prefixes and without fields 1 and 2 where nothing is in them. Text
/// that looks like a message is taken for one, on both sides alike.
fn substance(bytes: &[u8], depth: u32) -> usize {
    if depth == 0 { bytes.len() } else { fields(bytes, depth).unwrap_or(bytes.len()) }
}

fn fields(mut rest: &[u8], depth: u32) -> Option<usize> {
    let mut sum = 0;
    while !rest.is_empty() {
        let start = rest.len();
        let key = prost::decode_length_delimiter(&mut rest).ok()?;
        let key_len = start - rest.len();
        let (number, wire_type) = (key >> 3, key & 7);
        let value_len = match wire_type {
            0 => rest.iter().position(|byte| byte & 0x80 == 0)? + 1,
            1 => 8,
            2 => prost::decode_length_delimiter(&mut rest).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, behind) = rest.split_at_checked(value_len)?;
        rest = behind;
        sum += match wire_type {
            2 => match substance(value, depth - 1) {
                0 if (1..=2).contains(&number) => 0,
                inner => key_len + inner,
            },
            _ => key_len + value_len,
        };
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Struct;

    use super::*;

    /// Bytes of `fields` that a `Struct` does not keep; `entry` is the only entry of its map.
    fn unknown_in(entry: &[u8]) -> usize {
        let mut bytes = vec![0x0a, u8::try_from(entry.len()).unwrap()];
        bytes.extend(entry);
        unknown_bytes(&Struct::decode(bytes.as_slice()).unwrap(), &bytes)
    }

    #[test]
    fn a_map_entry_without_a_value_holds_no_unknown_field() {
        assert_eq!(unknown_in(b"\x0a\x01k\x12\x00"), 0);
        assert_eq!(unknown_in(b"\x0a\x01k"), 0);
        assert_eq!(unknown_in(b"\x0a\x00\x12\x00"), 0);
    }

    #[test]
    fn an_unknown_field_is_found_at_any_depth() {
        // Field 3 of the entry, then field 9 of the value beside a known one, each with the number 1.
        assert_eq!(unknown_in(b"\x0a\x01k\x12\x00\x18\x01"), 2);
        assert_eq!(unknown_in(b"\x0a\x01k\x12\x04\x20\x01\x48\x01"), 2);
    }

    #[test]
    fn text_that_looks_like_a_message_is_known() {
        // The key is itself an encoded entry.
        assert_eq!(unknown_in(b"\x0a\x04\x12\x02\x48\x01\x12\x00"), 0);
    }
}
