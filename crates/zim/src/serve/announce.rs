//! What `zim cache serve` says when it starts: where it listens, what it found on disk, what to paste where.
//!
//! The lines that start with `listening on ` are for programs too: one per address, URL last.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use zimcache_auth::Anonymous;
use zimcache_config::ServeConfig;
use zimcache_node::OpenReport;

use crate::output;

/// Everything that the start tells.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) addresses: &'a [SocketAddr],
    pub(super) unix_socket: Option<&'a Path>,
    /// What the cache is kept in.
    pub(super) found: &'a str,
    pub(super) access: Access,
}

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) tls: bool,
    /// Some token or user is known, so that credentials are looked at.
    pub(super) configured: bool,
    /// What callers without credentials may do.
    pub(super) anonymous: Anonymous,
    /// Only this machine can connect.
    pub(super) local_only: bool,
}

impl Access {
    fn text(self) -> String {
        let without = match self.anonymous {
            Anonymous::None => "nobody without credentials",
            Anonymous::Read => "without credentials everybody may read",
            Anonymous::ReadWrite => "without credentials everybody may read and write",
        };
        let credentials = if self.configured {
            "tokens and users are checked"
        } else {
            "no token exists (zim token create makes one)"
        };
        format!("access: {without}; {credentials}\n")
    }

    /// What an operator should know, for standard error.
    pub(super) fn warnings(self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.local_only {
            return warnings;
        }
        if self.anonymous == Anonymous::ReadWrite {
            warnings.push(
                "warning: whoever reaches this port may read and write this cache; \
                 --anonymous read or none ends that"
                    .to_owned(),
            );
        }
        if self.anonymous == Anonymous::None && !self.configured {
            warnings.push(
                "warning: every request is refused, because this port can be reached from other machines and no \
                 token exists yet; make one with: zim token create --namespace default --scope write"
                    .to_owned(),
            );
        }
        if self.configured && !self.tls {
            warnings.push(
                "warning: tokens travel in clear; give --tls-cert and --tls-key, or put a proxy with TLS in front"
                    .to_owned(),
            );
        }
        warnings
    }
}

impl Start<'_> {
    /// The text for standard output.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let scheme = if self.access.tls { "https" } else { "http" };
        for address in self.addresses {
            text.extend(["listening on ", scheme, "://", &address.to_string(), "\n"]);
        }
        if let Some(path) = self.unix_socket {
            text.extend(["listening on unix:", &path.to_string_lossy(), "\n"]);
        }
        text.push_str(self.found);
        text.push_str(&self.access.text());
        if let Some(address) = self.addresses.first() {
            text.push_str(&tools_text(scheme, *address));
        }
        text
    }
}

/// What opening a store found, for people. A store is made of whole segments, so a little less room than was asked for is
/// no news.
pub(super) fn found(
    storage: &Path,
    config: &ServeConfig,
    report: &OpenReport,
    is_new: bool,
) -> String {
    let how = match (is_new, report.clean) {
        (true, _) => "; made",
        (false, true) => "; found after a clean stop",
        (false, false) => "; recovered after a crash",
    };
    let mut text = format!(
        "store {}: {} and {}, {} of {}{how} in {} ms\n",
        storage.display(),
        output::counted(report.blobs, "blob", "blobs"),
        output::counted(report.entries, "entry", "entries"),
        output::bytes(report.live_bytes),
        output::bytes(report.capacity_bytes),
        report.recovery.as_millis(),
    );
    if report.damaged > 0 {
        let damaged = output::count(report.damaged);
        text.extend(["damaged records found, not served: ", &damaged, "\n"]);
    }
    let asked = config.store.max_size.as_u64();
    if report.capacity_bytes < asked / 10 * 9 {
        let (effective, asked) = (output::bytes(report.capacity_bytes), output::bytes(asked));
        text.extend([
            "room for ",
            &effective,
            ", not ",
            &asked,
            ": the disk is too full for more\n",
        ]);
    }
    text
}

/// A line to paste for each tool.
fn tools_text(scheme: &str, address: SocketAddr) -> String {
    let host = reachable(address);
    format!(
        "\nuse it:\n  \
         Bazel   bazel build --remote_cache={scheme}://{host} //...\n  \
         ccache  ccache --set-config remote_storage={scheme}://{host}/ccache\n  \
         others  zim setup TOOL --url {scheme}://{host}\n\n"
    )
}

/// An address that a client on this machine can reach: "any address" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zimcache_types::ByteSize;

    use super::*;

    const OPEN: Access = Access {
        tls: false,
        configured: false,
        anonymous: Anonymous::ReadWrite,
        local_only: true,
    };

    fn report() -> OpenReport {
        OpenReport {
            capacity_bytes: 90 << 30,
            blobs: 1234,
            entries: 5,
            live_bytes: 3 << 30,
            recovery: Duration::from_millis(7),
            clean: false,
            damaged: 2,
        }
    }

    fn asking_for(bytes: u64) -> ServeConfig {
        let mut config = ServeConfig::default();
        config.store.max_size = ByteSize(bytes);
        config
    }

    #[test]
    fn the_start_tells_addresses_findings_and_lines_to_paste() {
        let addresses = [
            "127.0.0.1:8080".parse().unwrap(),
            "[::1]:8080".parse().unwrap(),
        ];
        let found = found(Path::new("/s"), &asking_for(90 << 30), &report(), false);
        let start = Start {
            addresses: &addresses,
            unix_socket: Some(Path::new("/run/z")),
            found: &found,
            access: OPEN,
        };
        let text = start.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "listening on http://127.0.0.1:8080");
        assert_eq!(lines[1], "listening on http://[::1]:8080");
        assert_eq!(lines[2], "listening on unix:/run/z");
        assert_eq!(
            lines[3],
            "store /s: 1 234 blobs and 5 entries, 3GiB of 90GiB; recovered after a crash in 7 ms"
        );
        assert_eq!(lines[4], "damaged records found, not served: 2");
        assert!(lines[5].starts_with("access: without credentials everybody may read and write"));
        assert!(
            text.contains("--remote_cache=http://127.0.0.1:8080 "),
            "{text}"
        );
        assert!(
            text.contains("remote_storage=http://127.0.0.1:8080/ccache\n"),
            "{text}"
        );
    }

    #[test]
    fn less_room_than_asked_for_is_told() {
        let text = found(Path::new("/s"), &asking_for(101 << 30), &report(), false);
        assert!(text.contains("room for 90GiB, not 101GiB"), "{text}");
    }

    #[test]
    fn any_address_is_no_address_to_paste() {
        let text = tools_text("https", "0.0.0.0:80".parse().unwrap());
        assert!(text.contains("https://127.0.0.1:80"), "{text}");
    }

    #[test]
    fn what_other_machines_may_do_is_warned_about_and_this_one_is_not() {
        assert!(OPEN.warnings().is_empty());
        let reachable = Access {
            local_only: false,
            ..OPEN
        };
        assert!(reachable.warnings()[0].contains("may read and write"));
        let refusing = Access {
            anonymous: Anonymous::None,
            ..reachable
        };
        assert!(refusing.warnings()[0].contains("zim token create"));
        let in_clear = Access {
            configured: true,
            ..refusing
        };
        assert!(in_clear.warnings()[0].contains("in clear"));
        let fine = Access {
            tls: true,
            ..in_clear
        };
        assert!(fine.warnings().is_empty());
    }
}
