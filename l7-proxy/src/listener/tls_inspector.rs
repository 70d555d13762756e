//! `envoy.filters.listener.tls_inspector`: whether the first bytes are a TLS `ClientHello`, its server name and ALPN.
//!
//! Pure: in are all bytes so far, out is what they are or that more are needed. Reads the records' headers and the
//! handshake message (RFC 8446 §5.1, §4.1.2) and nothing else; the message may be spread over any number of records.

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsInspection {
    /// A prefix of something that may still be a `ClientHello`.
    NeedMore,
    /// Something else.
    NotTls,
    /// A whole `ClientHello`.
    ClientHello(ClientHello),
}

/// What a filter chain can be matched by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClientHello {
    /// SNI, lower-case.
    pub(super) server_name: Option<String>,
    /// In the client's order; names that are no UTF-8 match no chain and are left out.
    pub(super) application_protocols: Vec<String>,
}

const RECORD_HANDSHAKE: u8 = 22;
/// RFC 8446 §5.1: a plaintext record holds at most this.
const MAX_RECORD: usize = 1 << 14;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;

/// Looks at the bytes that the client sent so far.
pub(super) fn inspect(bytes: &[u8]) -> TlsInspection {
    let mut message = Vec::new();
    let mut records = Reader(bytes);
    loop {
        // What is there of a record's header must fit before the rest is waited for.
        if !record_header_fits(records.0) {
            return TlsInspection::NotTls;
        }
        let Some((length, fragment)) = read_record(&mut records) else { return TlsInspection::NeedMore };
        message.extend_from_slice(fragment);
        if message.first().is_some_and(|kind| *kind != HANDSHAKE_CLIENT_HELLO) {
            return TlsInspection::NotTls;
        }
        if let Some(body) = whole_message(Reader(&message)) {
            return read_client_hello(Reader(body)).map_or(TlsInspection::NotTls, TlsInspection::ClientHello);
        }
        if fragment.len() < length {
            return TlsInspection::NeedMore;
        }
    }
}

/// The body of the handshake message, once all of it is there.
fn whole_message(mut handshake: Reader<'_>) -> Option<&[u8]> {
    let (_kind, length) = (handshake.u8()?, handshake.u24()?);
    handshake.take(length)
}

/// `type handshake, version 3.x, length`, as far as it is there.
fn record_header_fits(bytes: &[u8]) -> bool {
    let mut header = Reader(bytes);
    header.u8().is_none_or(|kind| kind == RECORD_HANDSHAKE)
        && header.u8().is_none_or(|major| major == 3)
        && header.u8().is_none_or(|minor| minor <= 4)
        && header.u16().is_none_or(|length| (1..=MAX_RECORD).contains(&usize::from(length)))
}

/// The next record's length, and as much of its fragment as is there; `None` where the header is not.
fn read_record<'b>(records: &mut Reader<'b>) -> Option<(usize, &'b [u8])> {
    records.take(3)?;
    let length = usize::from(records.u16()?);
    let available = length.min(records.0.len());
    Some((length, records.take(available)?))
}

/// RFC 8446 §4.1.2. `None` is malformed.
fn read_client_hello(mut body: Reader<'_>) -> Option<ClientHello> {
    let (_legacy_version, _random) = (body.take(2)?, body.take(32)?);
    let _session_id = body.vector8()?;
    let _cipher_suites = body.vector16()?;
    let _compression_methods = body.vector8()?;
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        // TLS 1.2 allows a message without extensions.
        return Some(hello);
    }
    let mut extensions = Reader(body.vector16()?);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, Reader(extensions.vector16()?));
        match kind {
            EXTENSION_SERVER_NAME => {
                let name = std::str::from_utf8(read_server_name(content)?).ok();
                hello.server_name = name.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
            }
            EXTENSION_ALPN => hello.application_protocols = read_protocols(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 §3: the first host name. Empty where there is none.
fn read_server_name(mut content: Reader<'_>) -> Option<&[u8]> {
    let mut names = Reader(content.vector16()?);
    while !names.0.is_empty() {
        let (kind, name) = (names.u8()?, names.vector16()?);
        if kind == NAME_TYPE_HOST {
            return Some(name);
        }
    }
    Some(&[])
}

/// RFC 7301 §3.1.
fn read_protocols(mut content: Reader<'_>) -> Option<Vec<String>> {
    let mut list = Reader(content.vector16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.extend(std::str::from_utf8(list.vector8()?).ok().map(str::to_owned));
    }
    Some(protocols)
}

/// Takes fields off the front; `None` where they are not all there.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u24(&mut self) -> Option<usize> {
        let (high, low) = (self.u8()?, self.u16()?);
        Some(usize::from(high) << 16 | usize::from(low))
    }

    fn vector8(&mut self) -> Option<&'b [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'b [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector8(content: &[u8]) -> Vec<u8> {
        [&[u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn vector16(content: &[u8]) -> Vec<u8> {
        [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(content)].concat()
    }

    /// A handshake message with these extensions, between two that nobody knows.
    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let grease = extension(0x0a0a, b"grease");
        let extensions = [&grease[..], &extensions.concat(), &grease].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector8(&[9; 32]),
            &vector16(&[0x13, 0x01]),
            &vector8(&[0]),
            &vector16(&extensions),
        ]
        .concat();
        [&[1, 0][..], &vector16(&body)].concat()
    }

    /// In records of at most `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|fragment| [&[22, 3, 1][..], &vector16(fragment)].concat()).collect()
    }

    fn server_name(name: &str) -> Vec<u8> {
        extension(0, &vector16(&[&[0][..], &vector16(name.as_bytes())].concat()))
    }

    fn alpn(protocols: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = protocols.iter().flat_map(|name| vector8(name.as_bytes())).collect();
        extension(16, &vector16(&list))
    }

    #[test]
    fn server_name_and_protocols_are_read() {
        let bytes = records(&message(&[server_name("Backend.Default"), alpn(&["istio", "h2"])]), MAX_RECORD);
        let hello = ClientHello {
            server_name: Some("backend.default".to_owned()),
            application_protocols: vec!["istio".to_owned(), "h2".to_owned()],
        };
        assert_eq!(inspect(&bytes), TlsInspection::ClientHello(hello));
    }

    #[test]
    fn a_hello_without_extensions_names_nothing() {
        let bytes = records(&message(&[]), MAX_RECORD);
        assert_eq!(inspect(&bytes), TlsInspection::ClientHello(ClientHello::default()));
    }

    #[test]
    fn other_protocols_are_told_by_their_first_bytes() {
        for bytes in [
            &b"GET"[..],
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\0\x04\x02",
        ] {
            assert_eq!(inspect(bytes), TlsInspection::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_whose_lengths_disagree_is_not_tls() {
        let mut message = message(&[server_name("a")]);
        // The server name extension says it is longer than the message.
        let at = message.windows(6).position(|w| w == [0, 0, 0, 6, 0, 4]).unwrap();
        message[at + 2] = 0xff;
        assert_eq!(inspect(&records(&message, MAX_RECORD)), TlsInspection::NotTls);
    }

    proptest! {
        /// A hello is found once it is all there, not before, in records of any size, whatever follows it.
        #[test]
        fn a_hello_is_found_at_its_last_byte(
            name in "[a-z]{1,20}(\\.[a-z]{1,20}){0,4}",
            protocols in proptest::collection::vec("[a-z0-9/.-]{1,20}", 0..5),
            size in 1_usize..600,
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let offered: Vec<&str> = protocols.iter().map(String::as_str).collect();
            let mut bytes = records(&message(&[server_name(&name), alpn(&offered)]), size);
            for split in 0..bytes.len() {
                prop_assert_eq!(inspect(&bytes[..split]), TlsInspection::NeedMore);
            }
            bytes.extend(rest);
            let hello = ClientHello { server_name: Some(name), application_protocols: protocols };
            prop_assert_eq!(inspect(&bytes), TlsInspection::ClientHello(hello));
        }

        /// Anything can be inspected, and a verdict stays.
        #[test]
        fn foreign_bytes_do_no_harm(bytes in hostile_bytes()) {
            let verdicts: Vec<_> = (0..=bytes.len()).map(|split| inspect(&bytes[..split])).collect();
            let first = verdicts.iter().position(|verdict| *verdict != TlsInspection::NeedMore);
            let first = first.unwrap_or(verdicts.len());
            prop_assert!(verdicts[first..].windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
        }
    }

    /// Noise, and a hello with some bytes changed.
    fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..200);
        let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4);
        let hello = (changes, 1_usize..300).prop_map(|(changes, size)| {
            let mut bytes = records(&message(&[server_name("a.b"), alpn(&["h2"])]), size);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        });
        prop_oneof![noise, hello]
    }
}
