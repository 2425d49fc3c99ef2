//! Which addresses deliveries may go to. Pure: an address and the operator's list in, a verdict out.
//!
//! Everything that is not a public unicast address is refused unless the operator lists its network.
//! An IPv6 address that carries an IPv4 address goes where that one goes, so both are judged.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why deliveries may go to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It is a public address.
    Public,
    /// The operator's list has it: nothing else about the destination is questioned.
    Listed,
}

/// An address that deliveries may not go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RefusedAddress {
    /// The address, as it would be connected to.
    pub address: IpAddr,
    /// The IPv4 address it carries, where that one is what is refused.
    pub carried: Option<Ipv4Addr>,
    /// What it is, to go after "is".
    pub reason: &'static str,
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, carried, reason } = self;
        match carried {
            Some(carried) => write!(f, "{address} carries {carried}, which is {reason}"),
            None => write!(f, "{address} is {reason}"),
        }
    }
}

const LINK_LOCAL: &str =
    "link-local, where clouds keep their metadata; it is allowed only where it is listed by itself";
const METADATA: &str = "a cloud's metadata service; it is allowed only where it is listed by itself";

/// Refused even inside a listed network: one of these must be listed by itself (`/32`, `/128`),
/// since whoever lists `100.64.0.0/10` hardly means the cloud's credentials.
const ONE_BY_ONE: &[(IpNet, &str)] = &[
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    (v4(192, 0, 0, 192, 32), METADATA),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), METADATA),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), METADATA),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
];

/// Refused unless listed: the IANA registries of special addresses. The first that fits names the reason.
const SPECIAL: &[(IpNet, &str)] = &[
    (v4(0, 0, 0, 0, 8), "\"this network\", which reaches this machine"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by carriers (CGNAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "the former 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified, which reaches this machine"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "an IPv4 address in an obsolete form"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "an IPv4 address behind NAT64"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "an IPv4 address behind a local NAT64"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discarded"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "a Teredo tunnel"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved for protocols"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "for documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a 6to4 tunnel"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation"),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "for segment routing"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// Where global unicast is; what is outside and in no registry yet is refused too.
const GLOBAL_UNICAST: IpNet = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

/// Whether deliveries may go to `address`, where the operator has listed the networks `allowed`.
pub fn verdict(address: IpAddr, allowed: &[IpNet]) -> Result<Permit, RefusedAddress> {
    // `::ffff:a.b.c.d` is the IPv4 address to the kernel, so it is to us: the IPv4 rules and networks decide.
    let address = address.to_canonical();
    let permit = own_verdict(address, allowed).map_err(|reason| RefusedAddress { address, carried: None, reason })?;
    if let IpAddr::V6(address) = address {
        for carried in carried(address).into_iter().flatten() {
            own_verdict(carried.into(), allowed).map_err(|reason| RefusedAddress {
                address: address.into(),
                carried: Some(carried),
                reason,
            })?;
        }
    }
    Ok(permit)
}

/// The verdict on an address by itself, whatever it carries.
fn own_verdict(address: IpAddr, allowed: &[IpNet]) -> Result<Permit, &'static str> {
    let listed = || allowed.iter().filter(|network| network.contains(&address));
    if let Some((_, reason)) = ONE_BY_ONE.iter().find(|(network, _)| network.contains(&address)) {
        let by_itself = listed().any(|network| network.prefix_len() == network.max_prefix_len());
        return if by_itself { Ok(Permit::Listed) } else { Err(reason) };
    }
    if listed().next().is_some() {
        return Ok(Permit::Listed);
    }
    if let Some((_, reason)) = SPECIAL.iter().find(|(network, _)| network.contains(&address)) {
        return Err(reason);
    }
    match address {
        IpAddr::V6(_) if !GLOBAL_UNICAST.contains(&address) => Err("not a global unicast address"),
        IpAddr::V6(_) | IpAddr::V4(_) => Ok(Permit::Public),
    }
}

/// The IPv4 addresses that an IPv6 address carries; a Teredo address has two, its server's and its client's.
fn carried(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let octets = address.octets();
    let at = |start: usize| Some(Ipv4Addr::new(octets[start], octets[start + 1], octets[start + 2], octets[start + 3]));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None, None],
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => [at(12), None],
        // RFC 6052 puts the address around the octet 8 when the prefix is a /48, and last when it is a /96.
        [0x64, 0xff9b, 1, _, _, _, 0, 0] if octets[8] == 0 && octets[11] == 0 => {
            [Some(Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10])), None]
        }
        [0x64, 0xff9b, 1, ..] => [at(12), None],
        [0x2002, ..] => [at(2), None],
        [0x2001, 0, ..] => {
            let [a, b, c, d] = [!octets[12], !octets[13], !octets[14], !octets[15]];
            [at(4), Some(Ipv4Addr::new(a, b, c, d))]
        }
        // ISATAP: any prefix, then `0:5efe` or, where the IPv4 address is unique, `200:5efe`.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [at(12), None],
        _ => [None, None],
    }
}

/// Ports from 1,024 that browsers refuse too, since what listens there is no web server but may be made to do things by an HTTP request.
const HIGH_PORTS_REFUSED: &[u16] = &[
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697,
    10080, 11211,
];

/// Whether deliveries may go to this port of a public address: 80, 443 and nearly all from 1,024.
pub fn port_is_allowed(port: u16) -> bool {
    matches!(port, 80 | 443) || (port >= 1024 && !HIGH_PORTS_REFUSED.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(address: &str, allowed: &[&str]) -> Result<Permit, RefusedAddress> {
        let allowed: Vec<IpNet> = allowed.iter().map(|network| network.parse().unwrap()).collect();
        verdict(address.parse().unwrap(), &allowed)
    }

    #[test]
    fn what_is_not_public_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "64:ff9b::7f00:1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::a00:1",
            "64:ff9b:1:a00:0:100::",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:0:808:808:0:0:80ff:fffe",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2001:1ff::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd12:3456::1",
            "fe80::1",
            "fe80::5efe:8.8.8.8",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ffff::1",
            "4000::1",
            "200::1",
            "8000::1",
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:127.0.0.1",
            "2a00:1450::5efe:169.254.169.254",
        ] {
            assert!(judge(address, &[]).is_err(), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "2a00:1450::5efe:8.8.8.8",
        ] {
            assert_eq!(judge(address, &[]), Ok(Permit::Public), "{address}");
        }
    }

    #[test]
    fn a_listed_network_is_open_exactly() {
        for (address, allowed, open) in [
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.2.3", "10.1.0.0/16", false),
            ("127.0.0.1", "127.0.0.0/8", true),
            ("::1", "127.0.0.0/8", false),
            ("::1", "::1/128", true),
            ("::127.0.0.1", "::1/128", false),
            // The mapped form follows the IPv4 networks, and only those.
            ("::ffff:10.1.2.3", "10.1.0.0/16", true),
            ("::ffff:10.2.2.3", "10.1.0.0/16", false),
            ("::ffff:10.1.2.3", "::ffff:0:0/96", false),
            // A tunnel must be listed, and what it carries must be allowed as well.
            ("64:ff9b::8.8.8.8", "64:ff9b::/96", true),
            ("64:ff9b::127.0.0.1", "64:ff9b::/96", false),
            ("64:ff9b::127.0.0.1", "127.0.0.0/8", false),
            ("64:ff9b:1::a00:1", "64:ff9b:1::/48", false),
            ("64:ff9b:1::808:808", "64:ff9b:1::/48", true),
            ("64:ff9b:1:a00:0:100::", "64:ff9b:1::/48", false),
            ("64:ff9b:1:808:8:800::", "64:ff9b:1::/48", true),
            ("2002:7f00:1::", "2002::/16", false),
            ("2002:808:808::", "2002::/16", true),
            ("2001:0:808:808:0:0:f7f7:f7f7", "2001::/32", true),
            ("2001:0:808:808:0:0:80ff:fffe", "2001::/32", false),
            ("2001:0:7f00:1:0:0:f7f7:f7f7", "2001::/32", false),
            ("fd00::5efe:10.0.0.1", "fd00::/8", false),
            // Metadata and link-local are opened one by one.
            ("169.254.169.254", "169.254.0.0/16", false),
            ("169.254.169.254", "0.0.0.0/0", false),
            ("169.254.169.254", "169.254.169.254/32", true),
            ("100.100.100.200", "100.64.0.0/10", false),
            ("100.100.100.200", "100.100.100.200/32", true),
            ("fd00:ec2::254", "fd00::/8", false),
            ("fd00:ec2::255", "fd00::/8", true),
            ("::ffff:169.254.169.254", "0.0.0.0/0", false),
            ("64:ff9b::169.254.169.254", "::/0", false),
        ] {
            assert_eq!(judge(address, &[allowed]).is_ok(), open, "{address} with {allowed}");
        }
        assert_eq!(
            judge("64:ff9b::10.0.0.1", &["64:ff9b::/96", "10.0.0.0/8"]),
            Ok(Permit::Listed),
            "both the tunnel and what it carries are listed"
        );
    }

    #[test]
    fn a_refusal_says_what_the_address_is() {
        assert_eq!(judge("127.0.0.1", &[]).unwrap_err().to_string(), "127.0.0.1 is loopback");
        assert_eq!(
            judge("64:ff9b::10.0.0.1", &["64:ff9b::/96"]).unwrap_err().to_string(),
            "64:ff9b::a00:1 carries 10.0.0.1, which is private"
        );
    }

    #[test]
    fn ports_of_other_services_are_refused() {
        for port in [0, 22, 25, 81, 445, 1023, 6379, 6000] {
            assert!(!port_is_allowed(port), "{port}");
        }
        for port in [80, 443, 1024, 3000, 8080, 8443, 65535] {
            assert!(port_is_allowed(port), "{port}");
        }
    }
}
