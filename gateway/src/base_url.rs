//! Where the caller reaches this server, for the URLs that are handed out to it.
//!
//! The configuration knows best; else it is what the request says: the host it was sent to, and whether it came
//! encrypted. What a proxy says counts only when the proxy is one of ours. Not here: what stands behind the base.

use http::{HeaderMap, header};
use zimcache_config::GatewayConfig;

use crate::{Error, call::Call, error::Result, watch::Peer};

/// Scheme, host and what the configuration puts in front of every path; no slash at the end.
///
/// # Errors
/// [`Error::Request`] when neither the configuration nor the request names a host.
pub(crate) fn of(call: &Call<'_>) -> Result<String> {
    let authority = call.head.uri.authority().map(http::uri::Authority::as_str);
    from(
        &call.shared.config,
        call.peer,
        authority,
        &call.head.headers,
    )
}

fn from(
    config: &GatewayConfig,
    peer: Peer,
    authority: Option<&str>,
    headers: &HeaderMap,
) -> Result<String> {
    if let Some(url) = &config.public_url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let behind_ours = is_ours(config, peer);
    let told = |name: &str| headers.get_all(name).iter().next_back()?.to_str().ok();
    let forwarded = |name| {
        let last = told(name)?.rsplit(',').next()?.trim();
        (behind_ours && !last.is_empty()).then_some(last)
    };
    let host = forwarded("x-forwarded-host").or(authority);
    let host = host.or_else(|| told(header::HOST.as_str()));
    let host = host.filter(|host| is_host(host));
    let host = host.ok_or(Error::Request("its Host header names no host"))?;
    let encrypted = match forwarded("x-forwarded-proto") {
        Some(scheme) => scheme.eq_ignore_ascii_case("https"),
        None => matches!(peer, Peer::Tls(_)),
    };
    let scheme = if encrypted { "https" } else { "http" };
    Ok(format!("{scheme}://{host}"))
}

fn is_ours(config: &GatewayConfig, peer: Peer) -> bool {
    let (Peer::Tcp(address) | Peer::Tls(address)) = peer else {
        return false;
    };
    let address = address.ip().to_canonical();
    config
        .trusted_proxies
        .iter()
        .any(|network| network.contains(address))
}

/// Letters, digits and what else stands in names, addresses and ports.
fn is_host(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c);
    (1..=255).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn base(config: &GatewayConfig, peer: Peer, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        from(config, peer, None, &headers).ok()
    }

    fn peer() -> Peer {
        Peer::Tcp("10.0.0.7:1234".parse().unwrap())
    }

    #[test]
    fn the_configuration_knows_best() {
        let config = GatewayConfig {
            public_url: Some("https://cache.example/zim/".into()),
            ..GatewayConfig::default()
        };
        let found = base(&config, peer(), &[("host", "other")]);
        assert_eq!(found.as_deref(), Some("https://cache.example/zim"));
    }

    #[test]
    fn else_the_host_of_the_request_and_how_it_came() {
        let config = GatewayConfig::default();
        let host = [("host", "cache:8080")];
        let found = base(&config, peer(), &host);
        assert_eq!(found.as_deref(), Some("http://cache:8080"));
        let tls = Peer::Tls("10.0.0.7:1234".parse().unwrap());
        assert_eq!(
            base(&config, tls, &host).as_deref(),
            Some("https://cache:8080")
        );
        assert_eq!(
            base(&config, Peer::Unix, &[("host", "[::1]:80")]).as_deref(),
            Some("http://[::1]:80")
        );
    }

    #[test]
    fn what_a_proxy_says_counts_when_it_is_ours() {
        let lines = [
            ("host", "inner"),
            ("x-forwarded-host", "evil, cache.example"),
            ("x-forwarded-proto", "https"),
        ];
        let mut config = GatewayConfig::default();
        assert_eq!(
            base(&config, peer(), &lines).as_deref(),
            Some("http://inner")
        );
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(
            base(&config, peer(), &lines).as_deref(),
            Some("https://cache.example")
        );
    }

    #[test]
    fn without_a_host_there_is_no_base() {
        let config = GatewayConfig::default();
        for lines in [
            vec![],
            vec![("host", "")],
            vec![("host", "a/b")],
            vec![("host", "a b")],
        ] {
            assert_eq!(base(&config, peer(), &lines), None, "{lines:?}");
        }
    }
}
