//! WebDAV's answer about many resources, written as XML (RFC 4918, section 14.16).
//!
//! Only written, never read: what a client asks for in the body of a PROPFIND is not looked at, it gets every property
//! there is. Invariant: nothing gets into the document unescaped.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zimcache_types::Timestamp;

use crate::files::http_date;

/// What is written as it is in a path.
const IN_PATH: AsciiSet = NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What is told of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) size_bytes: u64,
    pub(crate) version: u64,
    pub(crate) created: Timestamp,
}

/// A document under way.
#[derive(Debug)]
pub(crate) struct Multistatus(String);

impl Multistatus {
    pub(crate) fn new() -> Multistatus {
        let start =
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
        Multistatus(start.to_owned())
    }

    /// Adds a file. `href` is a path as it stands in a request.
    pub(crate) fn file(&mut self, href: &str, file: File) {
        let (changed, size) = (http_date(file.created), file.size_bytes);
        let properties = format!(
            "<D:resourcetype/><D:getlastmodified>{changed}</D:getlastmodified>\
             <D:getcontentlength>{size}</D:getcontentlength><D:getetag>\"{:x}\"</D:getetag>",
            file.version
        );
        self.response(href, &properties);
    }

    /// Adds a folder. It has no time of its own; the earliest there is stands for it, because clients want one.
    pub(crate) fn folder(&mut self, href: &str) {
        let changed = http_date(Timestamp(0));
        let properties = format!(
            "<D:resourcetype><D:collection/></D:resourcetype>\
             <D:getlastmodified>{changed}</D:getlastmodified>\
             <D:getcontentlength>0</D:getcontentlength>"
        );
        self.response(href, &properties);
    }

    fn response(&mut self, href: &str, properties: &str) {
        self.0.push_str("<D:response><D:href>");
        escape(href, &mut self.0);
        // Writing to a string does not fail.
        let _ = writeln!(
            self.0,
            "</D:href><D:propstat><D:prop>{properties}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    }

    /// The document.
    pub(crate) fn finish(mut self) -> String {
        self.0.push_str("</D:multistatus>\n");
        self.0
    }
}

/// A name as it is written in a path.
pub(crate) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, &IN_PATH).to_string()
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_path_becomes_markup() {
        let mut document = Multistatus::new();
        document.folder("/webdav/a&b<'\"]]>/");
        let text = document.finish();
        assert!(text.contains("<D:href>/webdav/a&amp;b&lt;&apos;&quot;]]&gt;/</D:href>"));
    }

    #[test]
    fn a_name_is_encoded_so_that_it_is_read_back() {
        assert_eq!(encoded("a b/ü&<%.~-_"), "a%20b/%C3%BC%26%3C%25.~-_");
        let name = "a b/ü&<%.~-_";
        assert_eq!(crate::files::parse_path(&encoded(name)).unwrap(), name);
    }
}
