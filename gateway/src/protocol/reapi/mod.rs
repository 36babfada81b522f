//! The Remote Execution API, version 2 (<https://github.com/bazelbuild/remote-apis>), as far as it is a cache: Bazel,
//! Buck2, Pants, moon, BuildStream, reclient, recc.
//!
//! Tried with Bazel 4.2.3 and 2.1.0, moon 2.5.5, BuildStream 2.8.1. What it keeps of the specification, rule by rule and
//! with the test of each: `docs/reapi.md`. Quirks of clients: `docs/protocols/`.
//!
//! | service | calls | file |
//! | --- | --- | --- |
//! | `Capabilities` | GetCapabilities | `capabilities` |
//! | `ActionCache` | GetActionResult, UpdateActionResult | `action_cache`, `inline` |
//! | `ContentAddressableStorage` | FindMissingBlobs, BatchUpdateBlobs, BatchReadBlobs, GetTree, SplitBlob, SpliceBlob | `cas`, `batch`, `tree`, `chunks` |
//! | `google.bytestream.ByteStream` | Read, Write, QueryWriteStatus | `bytestream`, `names` |
//! | `build.bazel.remote.asset.v1.Fetch`, `Push` | FetchBlob, FetchDirectory, PushBlob, PushDirectory | `asset` |
//! | `grpc.health.v1.Health` | Check, List, Watch | `health` |
//! | `grpc.reflection.v1.ServerReflection`, `v1alpha` | ServerReflectionInfo | `reflection` |
//!
//! The instance name is the namespace; without one it is the caller's default. Calls are routed by path alone: the
//! `Execution` service is not here, and clients are told so with `UNIMPLEMENTED`. What is asked in a message of another
//! media type, or by another method than POST, is no call.

mod action_cache;
mod asset;
mod batch;
pub(crate) mod bytestream;
mod capabilities;
mod cas;
mod chunks;
mod digests;
mod health;
mod inline;
pub(crate) mod names;
mod reflection;
mod tree;

use http::{Method, Response, StatusCode, header};
use zimcache_proto::status::GrpcCode;
use zimcache_types::Namespace;

use crate::{
    body::Body,
    call::{Call, Counted},
    grpc::{self, Outcome, Status},
    limits::Class,
    metrics::Verb,
    room::Room,
    status,
};

pub(crate) use tree::Budget as Trees;

/// Lists the calls: name, service and method, handler, as what it counts.
macro_rules! calls {
    ($($call:ident = $service:literal / $method:literal, $handler:path, $verb:ident);+ $(;)?) => {
        /// A call, by its path.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Route {
            $($call,)+
            /// Of a service whose paths are ours, but not one that we answer.
            Unknown,
        }

        /// The service of each call.
        const SERVICES: &[&str] = &[$($service),+];

        /// Whether the path is one of ours.
        pub(crate) fn routes(path: &str) -> Option<Route> {
            match path {
                $(concat!("/", $service, "/", $method) => Some(Route::$call),)+
                _ => OURS.iter().any(|prefix| path.starts_with(prefix)).then_some(Route::Unknown),
            }
        }

        impl Route {
            /// As what it counts, in figures and for limits.
            const fn verb(self) -> Verb {
                match self {
                    $(Route::$call => Verb::$verb,)+
                    Route::Unknown => Verb::Other,
                }
            }
        }

        async fn dispatch(route: Route, call: Call<'_>) -> Outcome<Response<Body>> {
            match route {
                $(Route::$call => $handler(call).await,)+
                Route::Unknown => Err(Status::new(
                    GrpcCode::Unimplemented,
                    "this server is a cache; it has no such call",
                )),
            }
        }
    };
}

/// How the paths of our services begin.
const OURS: [&str; 4] = [
    "/build.bazel.remote.",
    "/google.bytestream.",
    "/google.longrunning.",
    "/grpc.",
];

calls! {
    GetCapabilities = "build.bazel.remote.execution.v2.Capabilities" / "GetCapabilities", capabilities::get, Other;
    GetActionResult = "build.bazel.remote.execution.v2.ActionCache" / "GetActionResult", action_cache::get, Get;
    UpdateActionResult = "build.bazel.remote.execution.v2.ActionCache" / "UpdateActionResult", action_cache::update, Put;
    FindMissingBlobs = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "FindMissingBlobs", cas::find_missing, Head;
    BatchUpdateBlobs = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "BatchUpdateBlobs", batch::update, Put;
    BatchReadBlobs = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "BatchReadBlobs", batch::read, Get;
    GetTree = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "GetTree", tree::get, Get;
    SplitBlob = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "SplitBlob", chunks::split, Get;
    SpliceBlob = "build.bazel.remote.execution.v2.ContentAddressableStorage" / "SpliceBlob", chunks::splice, Put;
    Read = "google.bytestream.ByteStream" / "Read", bytestream::read, Get;
    Write = "google.bytestream.ByteStream" / "Write", bytestream::write, Put;
    QueryWriteStatus = "google.bytestream.ByteStream" / "QueryWriteStatus", bytestream::query, Head;
    FetchBlob = "build.bazel.remote.asset.v1.Fetch" / "FetchBlob", asset::fetch::blob, Get;
    FetchDirectory = "build.bazel.remote.asset.v1.Fetch" / "FetchDirectory", asset::fetch::directory, Get;
    PushBlob = "build.bazel.remote.asset.v1.Push" / "PushBlob", asset::push::blob, Put;
    PushDirectory = "build.bazel.remote.asset.v1.Push" / "PushDirectory", asset::push::directory, Put;
    HealthCheck = "grpc.health.v1.Health" / "Check", health::check, Other;
    HealthList = "grpc.health.v1.Health" / "List", health::list, Other;
    HealthWatch = "grpc.health.v1.Health" / "Watch", health::watch, Other;
    Reflection = "grpc.reflection.v1.ServerReflection" / "ServerReflectionInfo", reflection::answer, Other;
    ReflectionAlpha = "grpc.reflection.v1alpha.ServerReflection" / "ServerReflectionInfo", reflection::answer, Other;
}

/// Answers a call.
pub(crate) async fn answer(route: Route, call: Call<'_>) -> Response<Body> {
    if call.head.method != Method::POST {
        return status::method_not_allowed("POST");
    }
    let media_type = call.head.headers.get(header::CONTENT_TYPE);
    let is_call =
        media_type.is_some_and(|value| value.as_bytes().starts_with(grpc::CONTENT_TYPE.as_bytes()));
    if !is_call {
        return status::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let (noted, verb) = (call.noted, route.verb());
    let answered = match call.pass(class(verb)) {
        Ok(()) => dispatch(route, call).await,
        Err(error) => Err(error.into()),
    };
    let refused = answered.as_ref().err();
    let status = refused.map_or(StatusCode::OK, Status::counted_as);
    noted.rpc.get_or_init(|| Counted { verb, status });
    answered.unwrap_or_else(Status::into_response)
}

const fn class(verb: Verb) -> Class {
    match verb {
        Verb::Get | Verb::Head => Class::Read,
        Verb::Put | Verb::Delete => Class::Write,
        Verb::Other => Class::Page,
    }
}

/// The caller in the namespace that an instance name means.
///
/// # Errors
/// `INVALID_ARGUMENT` when it names none, `UNAUTHENTICATED`, `PERMISSION_DENIED`.
async fn room_of<'a>(call: &Call<'a>, instance_name: &str) -> Outcome<Room<'a>> {
    let named = match instance_name {
        "" => None,
        name => Some(Namespace::new(name).map_err(crate::Error::from)?),
    };
    Ok(call.room_of(named).await?)
}
