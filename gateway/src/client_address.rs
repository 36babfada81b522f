//! Whose request it is when it came through a proxy.
//!
//! `X-Forwarded-For` is a list that every proxy appends to, so only its right end is to be believed, and only while a
//! proxy of ours wrote it: going from the right, the first address that is none of our proxies is the client. What
//! stands left of it anybody may have written. Not here: what the address is used for (`limits`).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use zimcache_config::IpNetwork;

use crate::watch::Peer;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address; `None` on a Unix socket.
pub(crate) fn of(peer: Peer, headers: &HeaderMap, proxies: &[IpNetwork]) -> Option<IpAddr> {
    let (Peer::Tcp(peer) | Peer::Tls(peer)) = peer else {
        return None;
    };
    let peer = peer.ip().to_canonical();
    if !is_ours(proxies, peer) {
        return Some(peer);
    }
    let values = headers.get_all(FORWARDED_FOR).iter().rev();
    let texts = values.map(|value| value.to_str().unwrap_or_default());
    Some(behind(peer, texts, proxies))
}

/// Goes through header values, last one first, from right to left. An entry that is no address ends the walk: whoever
/// wrote it, the last address before it is as far as we can see.
fn behind<'a>(
    peer: IpAddr,
    values: impl Iterator<Item = &'a str>,
    proxies: &[IpNetwork],
) -> IpAddr {
    let mut nearest = peer;
    for entry in values.flat_map(|value| value.rsplit(',')) {
        let Some(address) = parse_entry(entry) else {
            return nearest;
        };
        nearest = address;
        if !is_ours(proxies, address) {
            return nearest;
        }
    }
    nearest
}

fn is_ours(proxies: &[IpNetwork], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(address))
}

/// One entry: an address, with a port where the proxy adds one.
pub(crate) fn parse_entry(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn seen(peer: &str, values: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let peer = Peer::Tcp(SocketAddr::new(peer.parse().unwrap(), 4711));
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                FORWARDED_FOR,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        of(peer, &headers, &proxies).unwrap().to_string()
    }

    #[test]
    fn strangers_speak_for_themselves() {
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(seen("::ffff:192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn behind_our_proxies_the_rightmost_foreign_address_counts() {
        for (values, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["1.1.1.1, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
            (&["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            (&["203.0.113.9:5000"], "203.0.113.9"),
            (&["[2001:db8::1]:443 , fd00::7"], "2001:db8::1"),
            (&["10.0.0.5,10.0.0.6"], "10.0.0.5"),
            (&["203.0.113.9, unknown, 10.0.0.6"], "10.0.0.6"),
            (&["", "nonsense \u{e4}"], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", values), expected, "{values:?}");
        }
    }

    #[test]
    fn without_listed_proxies_nobody_is_believed() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
        let peer = Peer::Tcp("127.0.0.1:1".parse().unwrap());
        assert_eq!(of(peer, &headers, &[]), Some([127, 0, 0, 1].into()));
        let encrypted = Peer::Tls("192.0.2.1:1".parse().unwrap());
        assert_eq!(of(encrypted, &headers, &[]), Some([192, 0, 2, 1].into()));
        assert_eq!(of(Peer::Unix, &headers, &[]), None);
    }
}
