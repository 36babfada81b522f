//! The page for people: `GET /` in a browser shows what the cache holds, what it saved, and how to set up a tool.
//!
//! One self-contained document; its figures come from `/api/v1/usage`, asked for with the browser's own credentials, so
//! the document itself says no more than `/health` does. Read-only. Invariants: nothing is loaded from elsewhere, and
//! only the script and the style below run (the policy names their hashes); whatever callers chose themselves becomes
//! text, never markup (`page.js` builds nodes and sets their text).

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use zimcache_config::human::size_text;
use zimcache_types::{ByteSize, Digest, Function};

use crate::{body::Body, call::Call, status};

const TEMPLATE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// What `curl` gets.
const INDEX: &str = concat!(
    "ZimCache ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/health\n/metrics\n/api/v1/stats\n/api/v1/usage\n/api/v1/openapi.json\n"
);

/// The document and the policy that a browser enforces on it; the same for every request.
static BUILT: LazyLock<Built> = LazyLock::new(Built::new);

#[derive(Debug)]
struct Built {
    /// Up to and from where the figures for browsers without scripts go.
    before: String,
    after: String,
    policy: Option<HeaderValue>,
}

impl Built {
    fn new() -> Built {
        let page = TEMPLATE.replacen("/*style*/", STYLE, 1);
        let page = page.replacen("/*script*/", SCRIPT, 1);
        let (before, after) = page.split_once("<!--basics-->").unwrap_or((&page, ""));
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source(SCRIPT),
            source(STYLE),
        );
        Built {
            before: before.to_owned(),
            after: after.to_owned(),
            policy: HeaderValue::try_from(policy).ok(),
        }
    }
}

/// What a policy calls this text.
fn source(text: &str) -> String {
    let digest = Digest::of(Function::Sha256, text.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest.hash.as_bytes()))
}

/// Answers with the page for people, or with a list of pages for everything that does not ask for HTML.
pub(crate) fn answer(call: &Call<'_>) -> Response<Body> {
    const VARY: HeaderValue = HeaderValue::from_static("Accept");
    let mut response = if wants_html(&call.head.headers) {
        html(call)
    } else {
        status::text(StatusCode::OK, INDEX.to_owned())
    };
    response.headers_mut().insert(header::VARY, VARY);
    response
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut texts = accepted.filter_map(|value| value.to_str().ok());
    texts.any(|text| text.contains("text/html"))
}

fn html(call: &Call<'_>) -> Response<Body> {
    let built = &*BUILT;
    let stats = call.shared.admin.stats();
    let size = |bytes| size_text(ByteSize(bytes));
    let basics = format!(
        "Holds {} of {}: {} blobs, {} entries.",
        size(stats.live_bytes),
        size(stats.capacity_bytes),
        stats.blobs,
        stats.entries
    );
    let page = [&*built.before, &basics, &built.after].concat();
    let mut response = Response::new(Body::full(Bytes::from(page)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(policy) = &built.policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole_and_loads_nothing_from_elsewhere() {
        let built = Built::new();
        let page = format!("{}{}", built.before, built.after);
        assert!(page.contains(STYLE) && page.contains(SCRIPT));
        assert!(!built.after.is_empty() && built.after.contains("</html>"));
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<style").count(), 1);
        for outside in [" src=", "@import", "url(", "style=\"", " onclick="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(built.policy.is_some());
    }

    #[test]
    fn names_never_become_markup() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
    }

    #[test]
    fn a_policy_names_a_text_by_its_hash() {
        let empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(source(""), empty);
    }
}
