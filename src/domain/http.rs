//! What bounds a request, whoever makes it: its time, its answer, and the addresses that it may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Limits of every request to the gateway, as `[http]` sets them.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// For name, connection and TLS together.
    pub connect_timeout: Duration,
    /// For the whole request, the body of the answer included.
    pub timeout: Duration,
    /// Bytes of an answer that are read at most.
    pub max_body_bytes: usize,
}

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    // 100.64.0.0/10 is shared by carriers (RFC 6598); 0.0.0.0/8 and 240.0.0.0/4 are no hosts.
    let is_shared = a == 100 && (64..128).contains(&b);
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || is_shared
        || a == 0
        || a >= 240)
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    // NAT64: where there is no IPv4, each address of it is reached by one of these (RFC 6052).
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() {
        return is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    }
    // Others that stand for IPv4: `::/96`, NAT64 of a site's own (RFC 8215), 6to4 (RFC 3056).
    let stands_for_v4 = matches!(
        v6.segments(),
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, ..] | [0x2002, ..]
    );
    !(stands_for_v4
        || v6.is_loopback()
        || v6.is_unspecified()
        || v6.is_multicast()
        || v6.is_unique_local()
        || v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "93.184.216.34",
            "100.128.0.1",
            "172.32.0.1",
            "2a00:1450:4010::1",
            "64:ff9b::5db8:d822",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
