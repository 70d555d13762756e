//! The answer as a whole IP packet, so that it comes from whom the application asked.
//!
//! A socket that is bound to a resolver's port would keep the application from binding it, so the header is written here:
//! IPv4 (RFC 791) or IPv6 (RFC 8200), and UDP (RFC 768).

use std::net::{IpAddr, SocketAddr};

/// `IPPROTO_UDP`.
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: u8 = 20;
/// The packet goes over loopback only.
const HOPS: u8 = 64;

/// A datagram with its headers. `None` if it is too long for one, or if the families differ.
pub(crate) fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);

    let mut sum = Sum::default();
    let mut packet = Vec::with_capacity(usize::from(length) + 40);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = length.checked_add(IPV4_HEADER.into())?;
            // Version 4, five words. The kernel fills in the identification and the header's checksum (raw(7)).
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            packet.extend([0, 0, 0, 0, HOPS, UDP, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            sum.add(&source.octets());
            sum.add(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([UDP, HOPS]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            sum.add(&source.octets());
            sum.add(&destination.octets());
        }
        _ => return None,
    }
    sum.add(&[0, UDP]);
    sum.add(&length.to_be_bytes());
    sum.add(&udp);
    let checksum = sum.finish().to_be_bytes();
    udp.get_mut(6..8)?.copy_from_slice(&checksum);
    packet.extend(udp);
    Some(packet)
}

/// The Internet checksum (RFC 1071), of parts with an even length except the last.
#[derive(Default)]
struct Sum(u32);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let word = match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                [last] => u16::from_be_bytes([*last, 0]),
                _ => 0,
            };
            self.0 += u32::from(word);
        }
    }

    fn finish(self) -> u16 {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        // Zero would say that there is none.
        match u16::try_from(folded).map(|sum| !sum) {
            Ok(0) | Err(_) => u16::MAX,
            Ok(sum) => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(parts: &[&[u8]]) -> bool {
        let mut sum = Sum::default();
        for part in parts {
            sum.add(part);
        }
        // Whatever includes its own checksum sums up to all ones, which is reported as zero is.
        sum.finish() == u16::MAX
    }

    #[test]
    fn an_ipv4_datagram_has_its_lengths_and_its_checksum() {
        let (from, to) = ("10.96.0.10:53".parse().unwrap(), "10.77.0.1:40000".parse().unwrap());
        let packet = datagram(from, to, b"odd").unwrap();
        assert_eq!(packet.len(), 20 + 8 + 3);
        assert_eq!(packet[2..4], 31_u16.to_be_bytes());
        assert_eq!(packet[20..28][..6], [0, 53, 0x9c, 0x40, 0, 11]);
        assert!(checked(&[&packet[12..20], &[0, UDP], &11_u16.to_be_bytes(), &packet[20..]]));
    }

    #[test]
    fn an_ipv6_datagram_has_its_length_and_its_checksum() {
        let (from, to) = ("[fd96::a]:53".parse().unwrap(), "[fd77::1]:40000".parse().unwrap());
        let packet = datagram(from, to, b"even").unwrap();
        assert_eq!(packet.len(), 40 + 8 + 4);
        assert!(checked(&[&packet[8..40], &[0, UDP], &12_u16.to_be_bytes(), &packet[40..]]));
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_none() {
        let (from, to) = ("10.96.0.10:53".parse().unwrap(), "10.77.0.1:40000".parse().unwrap());
        assert!(datagram(from, to, &vec![0; 65_507]).is_some());
        assert!(datagram(from, to, &vec![0; 65_508]).is_none());
        assert!(datagram(from, "[fd77::1]:1".parse().unwrap(), b"").is_none());
    }
}
