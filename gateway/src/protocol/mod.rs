//! The table of dialects. A new dialect is one file and one line here.
//!
//! A dialect's file has `routes` (is this path mine, and what does it name?) and `answer` (do it), in that order, and
//! its wire tests. It sees [`crate::cache`] and what is in [`Call`]; never a store, a node or another dialect. Dialects
//! are asked in the order of the table; the operator's pages come first.

pub(crate) mod bazel_http;
pub(crate) mod ccache;

use http::{Method, Response, request::Parts};
use zimcache_store::ByteRange;

use crate::{
    Shared, admin,
    body::{Body, Upload},
    cache::Cache,
    error::Result,
    request, status,
    watch::Peer,
};

/// First path segments that belong to a dialect or to operators, and are never an instance name.
pub(crate) const RESERVED: [&str; 13] = [
    "api",
    "artifacts",
    "cache",
    "ccache",
    "health",
    "maven",
    "metrics",
    "ns",
    "status",
    "twirp",
    "v1",
    "v8",
    "webdav",
];

/// A request, as a dialect sees it.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) peer: Peer,
    pub(crate) head: &'a Parts,
    pub(crate) upload: &'a mut Upload,
}

impl Call<'_> {
    pub(crate) fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// Which bytes are wanted; only a GET can ask for less than all.
    pub(crate) fn range(&self) -> ByteRange {
        if self.head.method == Method::GET {
            request::range_of(&self.head.headers)
        } else {
            ByteRange::Full
        }
    }

    pub(crate) fn asks_for_range(&self) -> bool {
        self.range() != ByteRange::Full
    }
}

/// Lists the dialects: label, module, text of the label.
macro_rules! dialects {
    ($($(#[$doc:meta])* $dialect:ident = $module:ident),+ $(,)?) => {
        /// Whose request it is, as a label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Dialect {
            /// The operator's pages, and paths that are nobody's.
            Admin,
            $($(#[$doc])* $dialect),+
        }

        impl Dialect {
            pub(crate) const ALL: &'static [Dialect] = &[Dialect::Admin, $(Dialect::$dialect),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    Dialect::Admin => "admin",
                    $(Dialect::$dialect => stringify!($module)),+
                }
            }
        }

        /// Answers a request, and tells whose it was.
        pub(crate) async fn answer(path: &str, call: Call<'_>) -> (Dialect, Result<Response<Body>>) {
            if let Some(page) = admin::routes(path) {
                return (Dialect::Admin, admin::answer(page, call).await);
            }
            $(if let Some(route) = $module::routes(path) {
                return (Dialect::$dialect, $module::answer(route, call).await);
            })+
            (Dialect::Admin, Ok(status::empty(http::StatusCode::NOT_FOUND)))
        }
    };
}

dialects! {
    /// ccache's HTTP storage.
    Ccache = ccache,
    /// Bazel's HTTP cache; also moon's. Takes any path that ends in `/ac/…` or `/cas/…`, so it comes last.
    BazelHttp = bazel_http,
}

impl Dialect {
    /// Whether its GETs are look-ups in the cache.
    pub(crate) fn is_cache(self) -> bool {
        self != Dialect::Admin
    }
}
