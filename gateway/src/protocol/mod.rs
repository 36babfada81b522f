//! The table of dialects. A new dialect is one file and one line here.
//!
//! A dialect's file has `routes` (is this path mine, and what does it name?), `answer` (do it) and `refuse` (say no in
//! the words of this client), in that order, and its wire tests. It sees what is in [`Call`] and acts through a
//! [`Room`](crate::room::Room); never a store, a node or another dialect. Dialects are asked in the order of the table;
//! the operator's pages come first, then the calls of
//! gRPC, which say no in a way of their own and have a table of their own.

pub(crate) mod actions_cache;
pub(crate) mod bazel_http;
pub(crate) mod builder;
pub(crate) mod ccache;
pub(crate) mod gradle;
pub(crate) mod maven;
pub(crate) mod metro;
pub(crate) mod nx;
pub(crate) mod polykit;
pub(crate) mod reapi;
pub(crate) mod turborepo;
pub(crate) mod webdav;
pub(crate) mod zim_objects;

use http::Response;

use crate::{admin, body::Body, call::Call, error::Error, limits::Class, status};

/// First path segments that belong to a dialect or to operators, and are never an instance name.
pub(crate) const RESERVED: [&str; 14] = [
    "_apis",
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

/// Lists the dialects: label, module, text of the label.
macro_rules! dialects {
    ($($(#[$doc:meta])* $dialect:ident = $module:ident),+ $(,)?) => {
        /// Whose request it is, as a label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Dialect {
            /// The operator's pages, and paths that are nobody's.
            Admin,
            /// Remote procedure calls: the Remote Execution API and what belongs to it.
            Reapi,
            $($(#[$doc])* $dialect),+
        }

        impl Dialect {
            pub(crate) const ALL: &'static [Dialect] = &[Dialect::Admin, Dialect::Reapi, $(Dialect::$dialect),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    Dialect::Admin => "admin",
                    Dialect::Reapi => "reapi",
                    $(Dialect::$dialect => stringify!($module)),+
                }
            }
        }

        /// Answers a request, and tells whose it was.
        pub(crate) async fn answer(path: &str, call: Call<'_>) -> (Dialect, Response<Body>) {
            let head = call.head;
            if let Some(page) = admin::routes(path) {
                let answered = match call.pass(Class::Page) {
                    Ok(()) => admin::answer(page, call).await,
                    Err(error) => Err(error),
                };
                return (Dialect::Admin, answered.unwrap_or_else(|error| status::refuse(&error)));
            }
            if let Some(route) = reapi::routes(path) {
                return (Dialect::Reapi, reapi::answer(route, call).await);
            }
            $(if let Some(route) = $module::routes(path) {
                let answered = match call.pass(Class::of(&head.method)) {
                    Ok(()) => $module::answer(route, call).await,
                    Err(error) => Err(error),
                };
                let refused = |error: Error| $module::refuse(&error, head);
                return (Dialect::$dialect, answered.unwrap_or_else(refused));
            })+
            let nobodys = |()| status::empty(http::StatusCode::NOT_FOUND);
            let refused = |error: Error| status::refuse(&error);
            (Dialect::Admin, call.pass(Class::Page).map_or_else(refused, nobodys))
        }

        /// Whose path it is; `None`: nobody's.
        #[cfg(test)]
        pub(crate) fn whose(path: &str) -> Option<Dialect> {
            if admin::routes(path).is_some() {
                return Some(Dialect::Admin);
            }
            if reapi::routes(path).is_some() {
                return Some(Dialect::Reapi);
            }
            $(if $module::routes(path).is_some() {
                return Some(Dialect::$dialect);
            })+
            None
        }
    };
}

dialects! {
    /// GitHub Actions' cache service.
    ActionsCache = actions_cache,
    /// Builder's remote cache.
    Builder = builder,
    /// ccache's HTTP storage.
    Ccache = ccache,
    /// Gradle's build cache.
    Gradle = gradle,
    /// Maven's build cache extension.
    Maven = maven,
    /// Metro's artifacts, as Plasma serves them.
    Metro = metro,
    /// Nx's self-hosted remote cache.
    Nx = nx,
    /// Polykit's artifacts.
    Polykit = polykit,
    /// Turborepo's remote cache.
    Turborepo = turborepo,
    /// Files over WebDAV, for sccache.
    Webdav = webdav,
    /// ZIM's objects.
    ZimObjects = zim_objects,
    /// Bazel's HTTP cache; also moon's. Takes any path that ends in `/ac/…` or `/cas/…`, so it comes last.
    BazelHttp = bazel_http,
}

impl Dialect {
    /// Whether its clients ask with OPTIONS for something of their own.
    pub(crate) fn answers_options(self) -> bool {
        matches!(self, Dialect::Turborepo | Dialect::Maven | Dialect::Webdav)
    }

    /// Whether its GETs are look-ups in the cache.
    pub(crate) fn is_cache(self) -> bool {
        self != Dialect::Admin
    }
}
