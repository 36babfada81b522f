//! URLs that stand for a right: to upload into one upload, or to download one entry, for an hour.
//!
//! The storage clients that get them send no credential of ours. What is signed: what may be done, in which namespace,
//! to what, until when. Not here: the signature itself (`signing`), the host (`base_url`). Invariant: the query names
//! everything that is signed but what stands in the path; other parameters a client may add as it likes.

use std::{borrow::Cow, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zimcache_auth::Scope;
use zimcache_types::{Clock, Namespace, SystemClock};

use super::names::{Name, UploadId};
use crate::{Error, base_url, call::Call, error::Result, room::Room};

/// How long a URL holds.
const LIFETIME: Duration = Duration::from_hours(1);
/// The paths of signed URLs begin so, and end in `/blob`: storage clients need at least two segments.
pub(super) const UPLOAD: &str = "/twirp/upload/";
pub(super) const DOWNLOAD: &str = "/twirp/download/blob";

/// Where to upload.
///
/// # Errors
/// As [`base_url::of`]; `Unavailable` without a key to sign with.
pub(super) fn upload(call: &Call<'_>, namespace: &Namespace, id: &UploadId) -> Result<String> {
    let base = base_url::of(call)?;
    let query = sign(call, Scope::Write, namespace, id.as_str())?;
    Ok(format!("{base}{UPLOAD}{}/blob?{query}", id.as_str()))
}

/// Where to download.
///
/// # Errors
/// As [`base_url::of`]; `Unavailable` without a key to sign with.
pub(super) fn download(call: &Call<'_>, namespace: &Namespace, name: Name<'_>) -> Result<String> {
    let base = base_url::of(call)?;
    let text = name.text();
    let query = sign(call, Scope::Read, namespace, &text)?;
    let key = utf8_percent_encode(&text, NON_ALPHANUMERIC);
    Ok(format!("{base}{DOWNLOAD}?key={key}&{query}"))
}

fn sign(call: &Call<'_>, scope: Scope, namespace: &Namespace, subject: &str) -> Result<String> {
    let until = SystemClock.now().plus(LIFETIME).0 / 1_000;
    let until = until.to_string();
    let key = call.shared.actions.signing_key()?;
    let signature = key.sign(&parts(scope, namespace.as_str(), subject, &until));
    let namespace = utf8_percent_encode(namespace.as_str(), NON_ALPHANUMERIC);
    Ok(format!("ns={namespace}&se={until}&sig={signature}"))
}

fn parts<'a>(scope: Scope, namespace: &'a str, subject: &'a str, until: &'a str) -> [&'a str; 5] {
    ["actions-cache", scope.as_str(), namespace, subject, until]
}

/// The room that the URL of a request opens for this.
///
/// # Errors
/// [`Error::BadSignature`] when we did not sign it, or not for this, or not until now.
pub(super) fn room<'a>(call: &Call<'a>, scope: Scope, subject: &str) -> Result<Room<'a>> {
    let value = |name| parameter(call, name).ok_or(Error::BadSignature);
    let (namespace, until, signature) = (value("ns")?, value("se")?, value("sig")?);
    let key = call.shared.actions.signing_key()?;
    let holds = key.verifies(&parts(scope, &namespace, subject, &until), &signature);
    let until: u64 = until.parse().map_err(|_| Error::BadSignature)?;
    if !holds || until < SystemClock.now().0 / 1_000 {
        return Err(Error::BadSignature);
    }
    call.signed_room(scope, Namespace::new(&namespace)?)
}

/// A parameter of the query, decoded. A plus is a plus: base64 has it.
pub(super) fn parameter<'a>(call: &Call<'a>, name: &str) -> Option<Cow<'a, str>> {
    let pairs = call.head.uri.query()?.split('&');
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    percent_decode_str(value).decode_utf8().ok()
}
