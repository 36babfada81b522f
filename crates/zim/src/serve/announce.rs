//! What `zim cache serve` says when it starts: where it listens, what it found on disk, what to paste where.
//!
//! The lines that start with `listening on ` are for programs too: one per address, URL last.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use zimcache_node::OpenReport;

use crate::output;

/// Everything that the start tells.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) addresses: &'a [SocketAddr],
    pub(super) unix_socket: Option<&'a Path>,
    pub(super) storage: &'a Path,
    /// Capacity that was asked for. A store is made of whole segments, so a little less is no news.
    pub(super) asked_bytes: u64,
    pub(super) found: &'a OpenReport,
    /// The store was made by this start.
    pub(super) is_new: bool,
}

impl Start<'_> {
    /// The text for standard output.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for address in self.addresses {
            text.extend(["listening on http://", &address.to_string(), "\n"]);
        }
        if let Some(path) = self.unix_socket {
            text.extend(["listening on unix:", &path.to_string_lossy(), "\n"]);
        }
        text.extend([&*self.found_text(), "\n"]);
        if self.found.damaged > 0 {
            let damaged = output::count(self.found.damaged);
            text.extend(["damaged records found, not served: ", &damaged, "\n"]);
        }
        if self.found.capacity_bytes < self.asked_bytes / 10 * 9 {
            text.push_str(&self.room_text());
        }
        if let Some(address) = self.addresses.first() {
            text.push_str(&tools_text(*address));
        }
        text
    }

    fn found_text(&self) -> String {
        let found = self.found;
        let how = match (self.is_new, found.clean) {
            (true, _) => "; made",
            (false, true) => "; found after a clean stop",
            (false, false) => "; recovered after a crash",
        };
        format!(
            "store {}: {} and {}, {} of {}{how} in {} ms",
            self.storage.display(),
            output::counted(found.blobs, "blob", "blobs"),
            output::counted(found.entries, "entry", "entries"),
            output::bytes(found.live_bytes),
            output::bytes(found.capacity_bytes),
            found.recovery.as_millis(),
        )
    }

    fn room_text(&self) -> String {
        let effective = output::bytes(self.found.capacity_bytes);
        let asked = output::bytes(self.asked_bytes);
        format!("room for {effective}, not {asked}: the disk is too full for more\n")
    }
}

/// A line to paste for each tool.
fn tools_text(address: SocketAddr) -> String {
    let host = reachable(address);
    format!(
        "\nuse it:\n  \
         Bazel   bazel build --remote_cache=http://{host} //...\n  \
         ccache  ccache --set-config remote_storage=http://{host}/ccache\n\n"
    )
}

/// An address that a client on this machine can reach: "any address" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}

/// The warning for listeners that other machines can reach.
pub(super) fn exposure_warning(addresses: &[SocketAddr]) -> Option<String> {
    let exposed = addresses
        .iter()
        .filter(|address| !address.ip().is_loopback());
    let exposed: Vec<String> = exposed.map(ToString::to_string).collect();
    if exposed.is_empty() {
        return None;
    }
    Some(format!(
        "warning: {} is reachable from other machines: anyone there may read and write this cache, \
         because access tokens do not exist yet",
        exposed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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

    #[test]
    fn the_start_tells_addresses_findings_and_lines_to_paste() {
        let addresses = [
            "127.0.0.1:8080".parse().unwrap(),
            "[::1]:8080".parse().unwrap(),
        ];
        let start = Start {
            addresses: &addresses,
            unix_socket: Some(Path::new("/run/z")),
            storage: Path::new("/s"),
            asked_bytes: 90 << 30,
            found: &report(),
            is_new: false,
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
        let start = Start {
            addresses: &[],
            unix_socket: None,
            storage: Path::new("/s"),
            asked_bytes: 101 << 30,
            found: &report(),
            is_new: false,
        };
        let text = start.text();
        assert!(text.contains("room for 90GiB, not 101GiB"), "{text}");
    }

    #[test]
    fn any_address_is_no_address_to_paste() {
        let text = tools_text("0.0.0.0:80".parse().unwrap());
        assert!(text.contains("http://127.0.0.1:80"), "{text}");
    }

    #[test]
    fn only_addresses_beyond_this_machine_are_warned_about() {
        let all = ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "192.0.2.7:1"];
        let all = all.map(|text| text.parse().unwrap());
        assert_eq!(exposure_warning(&all[..2]), None);
        let warning = exposure_warning(&all).unwrap();
        assert!(warning.contains("0.0.0.0:1, 192.0.2.7:1 is"), "{warning}");
    }
}
