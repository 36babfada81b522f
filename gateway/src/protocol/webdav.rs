//! Files over WebDAV (<https://www.rfc-editor.org/rfc/rfc4918>, class 1 without COPY and MOVE), for sccache and whatever
//! else speaks it.
//!
//! Tried with sccache 0.19. Quirks: `docs/protocols/webdav.md`.
//!
//! | path | methods | what |
//! | --- | --- | --- |
//! | `/webdav/{path}` | GET, HEAD, PUT, DELETE | a file, opaque; the newest put wins |
//! | `/webdav/{path}`, `/webdav/{path}/` | PROPFIND, `Depth: 0` or `1` | what is known of a file or folder, and of what lies in it |
//! | the same | MKCOL | 201: folders need not be made |
//! | the same | OPTIONS | `DAV: 1`, without credentials |
//!
//! Folders are the beginnings of paths: a path with a slash at its end is always a folder that exists. sccache asks for
//! `.sccache_check` first, and does not compile when the answer is neither a hit nor a miss; so a GET that cannot be
//! served is 404, and only wrong credentials and malformed paths are told. Then it writes that file, and goes on
//! reading only when it may not.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use zimcache_auth::Scope;
use zimcache_store::EntryMeta;
use zimcache_types::{Code, EntryKind};

use crate::{
    Error,
    body::Body,
    call::Call,
    error::Result,
    files,
    multistatus::{File, Multistatus, encoded},
    respond,
    room::Room,
    status,
};

const FILE_METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS, PROPFIND, MKCOL";
const FOLDER_METHODS: &str = "OPTIONS, PROPFIND, MKCOL";
/// Most files and folders of one listing.
const MAX_LISTED: usize = 4096;
/// Entries that the store lists at once.
const LISTED_AT_ONCE: usize = 512;

/// The path below `/webdav/`, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a>(&'a str);

/// Whether the path is one of ours.
pub(crate) fn routes(path: &str) -> Option<Route<'_>> {
    match path.strip_prefix("/webdav")? {
        "" => Some(Route("")),
        below => below.strip_prefix('/').map(Route),
    }
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The key of a file; it may be the name of a folder, too.
    File(String),
    /// How the keys of everything in the folder begin: nothing, or a text that ends in a slash.
    Folder(String),
}

/// Reads a path.
///
/// # Errors
/// [`Error::Key`] when it could mean something outside its folder, or is too long.
pub(crate) fn parse_target(Route(below): Route<'_>) -> Result<Target> {
    match below.strip_suffix('/') {
        _ if below.is_empty() => Ok(Target::Folder(String::new())),
        Some(folder) => Ok(Target::Folder(
            files::parse_path(folder)?.into_owned() + "/",
        )),
        None => Ok(Target::File(files::parse_path(below)?.into_owned())),
    }
}

/// Answers a request.
pub(crate) async fn answer(route: Route<'_>, call: Call<'_>) -> Result<Response<Body>> {
    if call.head.method == Method::OPTIONS {
        return Ok(options());
    }
    let room = call.room().await?;
    let target = parse_target(route)?;
    match (call.head.method.as_str(), target) {
        ("PROPFIND", target) => propfind(&call, &room, target).await,
        ("MKCOL", target) => make_folder(&room, target).await,
        ("GET" | "HEAD", Target::File(path)) => {
            files::open(&call, &room, EntryKind::WebDav, &path).await
        }
        ("PUT", Target::File(path)) => {
            let meta = EntryMeta::default();
            let stored = room.put_entry(EntryKind::WebDav, &path, meta, call.upload);
            stored.await.map(|_| respond::done())
        }
        ("DELETE", Target::File(path)) => {
            let found = room.delete_entry(EntryKind::WebDav, &path).await?;
            Ok(respond::deleted(found))
        }
        ("GET" | "HEAD", Target::Folder(_)) => Ok(respond::miss()),
        (_, Target::Folder(_)) => Ok(status::method_not_allowed(FOLDER_METHODS)),
        (_, Target::File(_)) => Ok(status::method_not_allowed(FILE_METHODS)),
    }
}

fn options() -> Response<Body> {
    const DAV: HeaderName = HeaderName::from_static("dav");
    let mut response = respond::done();
    let headers = response.headers_mut();
    headers.insert(DAV, HeaderValue::from_static("1"));
    headers.insert(header::ALLOW, HeaderValue::from_static(FILE_METHODS));
    response
}

/// A folder is there as soon as it is named, so whoever may read may make one; a file is in its way.
async fn make_folder(room: &Room<'_>, target: Target) -> Result<Response<Body>> {
    room.require(Scope::Read)?;
    let path = match &target {
        Target::File(path) => path.as_str(),
        Target::Folder(start) => start.trim_end_matches('/'),
    };
    let taken = path.is_empty() || room.peek_entry(EntryKind::WebDav, path).await?.is_some();
    Ok(if taken {
        status::method_not_allowed(FILE_METHODS)
    } else {
        status::empty(StatusCode::CREATED)
    })
}

async fn propfind(call: &Call<'_>, room: &Room<'_>, target: Target) -> Result<Response<Body>> {
    room.require(Scope::Read)?;
    let depth = call.head.headers.get("depth");
    let deep = match depth.map(HeaderValue::as_bytes) {
        Some(b"0") => false,
        Some(b"1") => true,
        _ => return Ok(condition(StatusCode::FORBIDDEN, "propfind-finite-depth")),
    };
    let mut found = Multistatus::new();
    let href = call.head.uri.path();
    let (start, href) = match target {
        Target::Folder(start) => (start, href.trim_end_matches('/')),
        Target::File(path) => {
            if let Some(entry) = room.peek_entry(EntryKind::WebDav, &path).await? {
                let file = File {
                    size_bytes: entry.value.total_bytes(),
                    version: entry.version,
                    created: entry.created,
                };
                found.file(href, file);
                return Ok(document(StatusCode::MULTI_STATUS, found.finish()));
            }
            let start = path + "/";
            let some = room.list_entries(EntryKind::WebDav, &start, None, 1);
            if some.await?.is_empty() {
                return Ok(respond::miss());
            }
            (start, href)
        }
    };
    let href = format!("{href}/");
    found.folder(&href);
    if deep && !list(room, &start, &href, &mut found).await? {
        let condition_name = "number-of-matches-within-limits";
        return Ok(condition(StatusCode::INSUFFICIENT_STORAGE, condition_name));
    }
    Ok(document(StatusCode::MULTI_STATUS, found.finish()))
}

/// Adds what lies directly in the folder; false when that is too much.
async fn list(room: &Room<'_>, start: &str, href: &str, found: &mut Multistatus) -> Result<bool> {
    let mut after: Option<String> = None;
    let mut listed = 0;
    loop {
        let some = room.list_entries(EntryKind::WebDav, start, after.as_deref(), LISTED_AT_ONCE);
        let some = some.await?;
        for entry in &some {
            let passed = after.as_deref().is_some_and(|after| &*entry.text <= after);
            let Some(name) = entry.text.strip_prefix(start).filter(|_| !passed) else {
                continue;
            };
            if listed == MAX_LISTED {
                return Ok(false);
            }
            listed += 1;
            if let Some((folder, _)) = name.split_once('/') {
                found.folder(&format!("{href}{}/", encoded(folder)));
                // Behind everything else in that folder.
                after = Some(format!("{start}{folder}/{}", char::MAX));
                continue;
            }
            let file = File {
                size_bytes: entry.size_bytes,
                version: entry.version,
                created: entry.created,
            };
            found.file(&format!("{href}{}", encoded(name)), file);
            after = Some(entry.text.to_string());
        }
        if some.len() < LISTED_AT_ONCE {
            return Ok(true);
        }
    }
}

/// Says which of WebDAV's conditions does not hold.
fn condition(status: StatusCode, name: &'static str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\"><D:{name}/></D:error>\n"
    );
    document(status, text)
}

fn document(status: StatusCode, text: String) -> Response<Body> {
    const XML: HeaderValue = HeaderValue::from_static("application/xml; charset=utf-8");
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, XML);
    response
}

/// Says no so that sccache starts where it can.
pub(crate) fn refuse(error: &Error, head: &Parts) -> Response<Body> {
    match (&head.method, error.code()) {
        (_, Code::Unauthenticated | Code::Invalid | Code::RangeInvalid) => status::refuse(error),
        (&Method::GET | &Method::HEAD, _) => status::refuse_as(StatusCode::NOT_FOUND, error),
        _ => status::refuse(error),
    }
}
