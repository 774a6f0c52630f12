//! How near an address is: what a name may lead to, and what only its own literal address opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anywhere.
    Public,
    /// A private network: RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// This machine, its link, its cloud's metadata, or no host at all.
    Local,
}

/// Metadata services that do not lie in a link-local network: Azure's host agent, Alibaba, AWS and Google over IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
];

/// How near `address` is, by what it really leads to.
pub(crate) fn reach(address: IpAddr) -> Reach {
    let address = canonical(address);
    if METADATA.contains(&address) {
        return Reach::Local;
    }
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let nowhere = a == 0 || a >= 224 || (a, b, c) == (192, 0, 0) || (a, b & 0xfe) == (198, 18);
            match () {
                () if nowhere || v4.is_loopback() || v4.is_link_local() || v4.is_documentation() => Reach::Local,
                () if v4.is_private() || (a, b & 0xc0) == (100, 64) => Reach::Private,
                () => Reach::Public,
            }
        }
        IpAddr::V6(v6) if v6.is_unique_local() => Reach::Private,
        // Global unicast begins with the bits 001; Teredo in it leads to whatever its server says.
        IpAddr::V6(v6) => match v6.segments() {
            [0x2001, 0, ..] => Reach::Local,
            [first, ..] if first & 0xe000 == 0x2000 => Reach::Public,
            _ => Reach::Local,
        },
    }
}

/// The IPv4 address that an IPv6 one carries (mapped, compatible, NAT64, 6to4), or the address itself.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_is_told_by_what_it_leads_to() {
        for (addresses, wanted) in [
            ("8.8.8.8 93.184.216.34 172.32.0.1 2606:4700::1111 2002:808:808::1 64:ff9b::808:808", Reach::Public),
            (
                "10.0.0.1 172.31.255.255 192.168.1.1 100.64.0.1 fd12::1 fc00::1 ::ffff:10.0.0.1 2002:a00:1::",
                Reach::Private,
            ),
            (
                "127.0.0.1 127.9.9.9 0.0.0.0 0.1.2.3 169.254.169.254 169.254.170.2 255.255.255.255 224.0.0.1",
                Reach::Local,
            ),
            ("240.0.0.1 192.0.0.192 198.19.0.1 192.0.2.1 168.63.129.16 100.100.100.200", Reach::Local),
            (":: ::1 fe80::1 febf::1 fec0::1 ff02::1 fd00:ec2::254 fd20:ce::254 2001::1", Reach::Local),
            ("::ffff:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::ffff:a9fe:a9fe 64:ff9b:1::1", Reach::Local),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(reach(address.parse().unwrap()), wanted, "{address}");
            }
        }
    }
}
