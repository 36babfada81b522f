//! Which addresses may be connected to on behalf of a client.
//!
//! A client that names a URL must not reach through this server what it cannot reach itself: this machine, the networks
//! behind it, and the metadata services of clouds, which hand out credentials to whoever asks from inside. Sources: the
//! registries of special-purpose addresses (RFC 6890 and what was added since), clouds' manuals for theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Azure's platform service: a public address that answers only inside.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// Alibaba Cloud's metadata, among the addresses of carriers.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
/// Oracle Cloud's metadata, among the protocol assignments.
const ORACLE_METADATA: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 192);
/// Amazon's metadata over IPv6; over IPv4 it is link-local, as everybody else's.
const AMAZON_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Clouds' services that hand out what only their machines may know, where no network below covers them.
const METADATA: [Ipv4Addr; 3] = [AZURE_PLATFORM, ALIBABA_METADATA, ORACLE_METADATA];
/// No machine, many machines, or link-local, where most metadata services are; with the length of their prefixes.
const NOWHERE: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// This machine, networks that the internet does not route, and addresses set aside.
const BEHIND: [(Ipv4Addr, u32); 11] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
];

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the internet.
    Public,
    /// On this machine, or in a network behind it.
    Private,
    /// Nothing that anybody fetches from: many machines, none, or a metadata service.
    Never,
}

impl Place {
    /// Where an address is.
    pub(super) fn of(address: IpAddr) -> Place {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Place {
    let is_in = |networks: &[(Ipv4Addr, u32)]| {
        let mut networks = networks.iter();
        networks.any(|(start, length)| {
            let different = start.to_bits() ^ address.to_bits();
            different >> (u32::BITS - length) == 0
        })
    };
    if METADATA.contains(&address) || is_in(&NOWHERE) {
        Place::Never
    } else if is_in(&BEHIND) {
        Place::Private
    } else {
        Place::Public
    }
}

fn of_v6(address: Ipv6Addr) -> Place {
    if let Some(embedded) = embedded(address) {
        // What is written so may go around a guard that reads IPv4 only: it is never public.
        return match of_v4(embedded) {
            Place::Public => Place::Private,
            other => other,
        };
    }
    let segments = address.segments();
    match segments[0] {
        // An IPv4 address behind a translator; the network decides where it ends.
        0x0064 if segments[1..6] == [0xff9b, 0, 0, 0, 0] => of_v4(last_four(address)),
        _ if address == AMAZON_METADATA => Place::Never,
        // Link-local and multicast.
        0xfe80..=0xfebf | 0xff00.. => Place::Never,
        _ if address.is_unspecified() => Place::Never,
        // Documentation and protocol assignments.
        0x2001 if segments[1] == 0xdb8 || segments[1] < 0x200 => Place::Private,
        0x3fff if segments[1] < 0x1000 => Place::Private,
        0x2000..=0x3fff => Place::Public,
        _ => Place::Private,
    }
}

/// The IPv4 address in one that is mapped, compatible, or of 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    if segments[0] == 0x2002 {
        let [a, b] = segments[1].to_be_bytes();
        let [c, d] = segments[2].to_be_bytes();
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    let compatible = segments[..5] == [0; 5] && matches!(segments[5], 0 | 0xffff);
    let is_own = address.is_loopback() || address.is_unspecified();
    (compatible && !is_own).then(|| last_four(address))
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let bits = address.to_bits();
    Ipv4Addr::from_bits(bits as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: Place, addresses: &[&str]) {
        for text in addresses {
            let address = text.parse().unwrap();
            assert_eq!(Place::of(address), place, "{text}");
        }
    }

    #[test]
    fn addresses_on_the_internet_are_public() {
        check(
            Place::Public,
            &[
                "1.1.1.1",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "140.82.121.3",
                "169.253.0.1",
                "172.15.0.1",
                "172.32.0.1",
                "192.167.1.1",
                "192.169.1.1",
                "198.17.0.1",
                "198.20.0.1",
                "223.255.255.255",
                "2606:4700::1111",
                "2a00:1450::1",
                "64:ff9b::8c52:7903",
            ],
        );
    }

    #[test]
    fn this_machine_and_the_networks_behind_it_are_private() {
        check(
            Place::Private,
            &[
                "127.0.0.1",
                "127.255.0.1",
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.0.1",
                "100.64.0.1",
                "100.127.255.255",
                "192.0.0.1",
                "192.0.2.1",
                "198.18.0.1",
                "198.51.100.1",
                "203.0.113.1",
                "::1",
                "fc00::1",
                "fd12::1",
                "fec0::1",
                "100::1",
                "2001:db8::1",
                "2001::1",
                "64:ff9b::a00:1",
                "64:ff9b:1::1",
            ],
        );
    }

    #[test]
    fn an_ipv4_address_in_disguise_is_never_public() {
        check(
            Place::Private,
            &[
                "::ffff:127.0.0.1",
                "::ffff:1.1.1.1",
                "::127.0.0.1",
                "::1.1.1.1",
                "2002:7f00:1::",
                "2002:101:101::",
            ],
        );
        check(
            Place::Never,
            &["::ffff:169.254.169.254", "2002:a9fe:a9fe::"],
        );
    }

    #[test]
    fn metadata_services_and_what_is_no_machine_are_never_connected_to() {
        check(
            Place::Never,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "169.254.169.254",
                "169.254.0.1",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "fe80::1",
                "febf::1",
                "ff02::1",
                "fd00:ec2::254",
                "64:ff9b::a9fe:a9fe",
            ],
        );
    }
}
