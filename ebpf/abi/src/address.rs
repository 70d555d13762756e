//! Addresses and ports as the maps hold them.

use core::net::{IpAddr, Ipv6Addr};

/// An address as four words in network byte order; IPv4 is IPv4-mapped.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Address(pub [u32; 4]);

/// The address of a frontend that matches every destination at its port.
pub const ANY: Address = Address([0; 4]);

/// `::ffff:0:0/96`'s third word.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// An IPv4 address from its one word in network byte order, as in `user_ip4`.
    #[inline]
    #[must_use]
    pub const fn from_ip4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// The word of an IPv4 address, in network byte order; `None` for native IPv6.
    #[inline]
    #[must_use]
    pub const fn ip4_word(&self) -> Option<u32> {
        match self.0 {
            [0, 0, MAPPED, word] => Some(word),
            _ => None,
        }
    }

    /// A word that differs mostly where addresses do.
    #[inline]
    #[must_use]
    pub(crate) const fn folded(&self) -> u32 {
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }

    /// Whether the address never leaves the pod whatever the routes say: 127.0.0.0/8, `::1`, and the unspecified
    /// addresses, which Linux connects to loopback.
    #[inline]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        match self.0 {
            [0, 0, 0, word] => word == 0 || word == 1_u32.to_be(),
            [0, 0, MAPPED, word] => word == 0 || word.to_ne_bytes()[0] == 127,
            _ => false,
        }
    }

    /// Whether the address is IPv6 link-local (`fe80::/10`), valid on one link only.
    #[inline]
    #[must_use]
    pub const fn is_link_local_v6(&self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let [s0, s1, s2, s3, s4, s5, s6, s7] = v6.segments();
        let word = |high: u16, low: u16| (u32::from(high) << 16 | u32::from(low)).to_be();
        Self([word(s0, s1), word(s2, s3), word(s4, s5), word(s6, s7)])
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let [a, b, c, d] = address.0.map(|word| u128::from(u32::from_be(word)));
        Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical()
    }
}

/// A port in network byte order.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port(pub u16);

impl Port {
    /// From host byte order.
    #[inline]
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// In host byte order.
    #[inline]
    #[must_use]
    pub const fn host_order(self) -> u16 {
        u16::from_be(self.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_ipv4_address_is_held_mapped_and_comes_back_as_ipv4() {
        let ip = IpAddr::from([10, 77, 0, 1]);
        let address = Address::from(ip);
        assert_eq!(address.ip4_word(), Some(u32::from(Ipv4Addr::new(10, 77, 0, 1)).to_be()));
        assert_eq!(address, Address::from_ip4_word(u32::from_ne_bytes([10, 77, 0, 1])));
        assert_eq!(IpAddr::from(address), ip);
    }

    #[test]
    fn a_native_ipv6_address_has_no_ipv4_word() {
        let ip: IpAddr = "fd77::1".parse().unwrap();
        assert_eq!(Address::from(ip).ip4_word(), None);
        assert_eq!(IpAddr::from(Address::from(ip)), ip);
    }

    #[test]
    fn loopback_covers_both_families_and_the_unspecified_addresses() {
        for ip in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"] {
            assert!(Address::from(ip.parse::<IpAddr>().unwrap()).is_loopback(), "{ip}");
        }
        for ip in ["128.0.0.1", "10.127.0.1", "::2", "fd77::1"] {
            assert!(!Address::from(ip.parse::<IpAddr>().unwrap()).is_loopback(), "{ip}");
        }
    }

    #[test]
    fn link_local_is_fe80_slash_10() {
        for (ip, expected) in
            [("fe80::1", true), ("febf::1", true), ("fec0::1", false), ("169.254.1.1", false)]
        {
            assert_eq!(Address::from(ip.parse::<IpAddr>().unwrap()).is_link_local_v6(), expected, "{ip}");
        }
    }
}
