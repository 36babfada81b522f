//! sccache over WebDAV: variables, or a table of its file.

use http::Method;

use super::{
    check::{Outcome, Probe},
    snippet::{Cache, FilePart, Merge, Part, Place, Snippet},
};
use crate::error::Result;

const PROPFIND_BODY: &[u8] = br#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>"#;

pub(super) fn snippet(cache: &Cache) -> Snippet {
    let endpoint = cache.at("/webdav");
    let mut text = format!("[cache.webdav]\nendpoint = \"{endpoint}\"\n");
    let mut variables = vec![("SCCACHE_WEBDAV_ENDPOINT", endpoint)];
    let token = cache.token();
    if let Some(token) = &token {
        text.extend(["token = \"", token, "\"\n"]);
        variables.push(("SCCACHE_WEBDAV_TOKEN", token.clone()));
    }
    let file = FilePart {
        place: Place::Home,
        path: ".config/sccache/config",
        comment: ("# ", ""),
        merge: Merge::Block {
            foreign: &["[cache."],
        },
        text,
        secret: token.is_some(),
    };
    Snippet {
        parts: vec![Part::Variables(variables), Part::File(file)],
        notes: vec![
            "Either the variables or the file; then sccache --stop-server, which starts with the next compilation.",
        ],
    }
}

/// As sccache does it: a PROPFIND of the folder before the object.
pub(super) fn check(probe: &Probe<'_>) -> Result<Outcome> {
    let key = probe.hex(64);
    let folder = probe.room(&format!(
        "/webdav/{}/{}/{}/",
        &key[..1],
        &key[1..2],
        &key[2..3]
    ));
    let propfind = Method::from_bytes(b"PROPFIND").unwrap_or(Method::OPTIONS);
    let headers = [("depth", "0"), ("content-type", "application/xml")];
    probe.expect(propfind, &folder, &headers, PROPFIND_BODY, &[207, 404])?;
    probe.round_trip(&format!("{folder}{key}"), &[])
}
