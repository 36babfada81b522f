//! `Fetch.FetchBlob` and `FetchDirectory`: what a URI means, by its checksum, by what was pushed or fetched before, or by
//! fetching it now.
//!
//! Every answer is there and leased. Fetching stores something, so it takes the right to write. Directories are never
//! fetched: nothing is unpacked here. Source: the comments of `remote_asset.proto`.

use std::time::Duration;

use http::Response;
use zimcache_auth::Scope;
use zimcache_proto::{
    asset::{FetchBlobRequest, FetchBlobResponse, Qualifier},
    status::GrpcCode,
};
use zimcache_store::ByteRange;
use zimcache_types::{Clock as _, Code, Digest, Function, SystemClock, Timestamp};

use super::{check_uris, qualifiers::Qualifiers, read_time, write_time};
use crate::{
    assets::{Kind, Name},
    body::Body,
    cache::Named,
    call::{Call, Counted},
    fetching::{Checksums, Failure, Sums, Target, Wanted},
    grpc::{self, Messages, Outcome, Status},
    metrics::Verb,
    protocol::reapi::{digests, room_of},
    room::Room,
};

/// How long what was answered is there at least.
const LEASE: Duration = Duration::from_hours(4);
/// How long fetching may take for who says nothing, and at most.
const USUAL_TIME: Duration = Duration::from_mins(10);
const MOST_TIME: Duration = Duration::from_hours(1);

/// Answers `FetchBlob`.
pub(in crate::protocol::reapi) async fn blob(call: Call<'_>) -> Outcome<Response<Body>> {
    fetch(call, Kind::Blob).await
}

/// Answers `FetchDirectory`.
pub(in crate::protocol::reapi) async fn directory(call: Call<'_>) -> Outcome<Response<Body>> {
    fetch(call, Kind::Directory).await
}

async fn fetch(call: Call<'_>, kind: Kind) -> Outcome<Response<Body>> {
    call.principal().await?;
    let mut messages = Messages::new(call.upload, &call.shared.messages);
    let request: FetchBlobRequest = messages.decode().await?;
    check_uris(&request.uris)?;
    let search = Search::new(&call, kind, &request).await?;
    let found = match search.known().await? {
        Some(known) => Ok(known),
        None => search.elsewhere().await?,
    };
    if let Err(unknown) = &found {
        // The call succeeds, but it is no hit.
        let status = unknown.status.counted_as();
        let verb = Verb::Get;
        call.noted.rpc.get_or_init(|| Counted { verb, status });
    }
    Ok(grpc::unary(&search.answer(found)))
}

/// An asset that was found.
#[derive(Debug)]
struct Known {
    uri: String,
    digest: Digest,
    expires: Option<Timestamp>,
}

/// Why none was, and at which URI.
#[derive(Debug)]
struct Unknown {
    uri: String,
    status: Status,
}

/// A request that is being answered.
#[derive(Debug)]
struct Search<'a> {
    call: &'a Call<'a>,
    room: Room<'a>,
    kind: Kind,
    request: &'a FetchBlobRequest,
    qualifiers: Qualifiers,
    function: Option<Function>,
    oldest: Timestamp,
    time: Duration,
    now: Timestamp,
}

impl<'a> Search<'a> {
    async fn new(
        call: &'a Call<'a>,
        kind: Kind,
        request: &'a FetchBlobRequest,
    ) -> Outcome<Search<'a>> {
        let qualifiers = Qualifiers::read(kind, &request.qualifiers, request.uris.len())?;
        let reader = digests::Reader::new(&call.shared.config, request.digest_function)?;
        let room = room_of(call, &request.instance_name).await?;
        room.require(Scope::Read)?;
        let oldest = request.oldest_content_accepted.as_ref();
        Ok(Search {
            call,
            room,
            kind,
            request,
            qualifiers,
            function: reader.function(),
            oldest: oldest.map(read_time).unwrap_or_default(),
            time: time_of(request.timeout.as_ref())?,
            now: SystemClock.now(),
        })
    }

    /// What is here already.
    async fn known(&self) -> Outcome<Option<Known>> {
        if let Some(digest) = self.by_checksum().await? {
            let uri = self.request.uris.first().cloned().unwrap_or_default();
            return Ok(Some(Known {
                uri,
                digest,
                expires: None,
            }));
        }
        for uri in &self.request.uris {
            let name = self.name(uri);
            for function in self.functions() {
                let asset = self.room.asset(&name, function, self.oldest, self.now);
                if let Some(asset) = asset.await?
                    && self.satisfies(&asset.digest).await?
                {
                    return Ok(Some(Known {
                        uri: name.uri,
                        digest: asset.digest,
                        expires: asset.expires,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// A blob that has one of the checksums for its name.
    async fn by_checksum(&self) -> Outcome<Option<Digest>> {
        let checksums = self.qualifiers.checksums.iter().flat_map(Checksums::iter);
        for hash in checksums {
            let wanted = self.function.unwrap_or(Function::Sha256);
            if hash.function() != wanted {
                continue;
            }
            let named = Named {
                digest: Digest::unsized_(*hash),
                certain: true,
            };
            let Some(reader) = self.room.open_blob(&named, ByteRange::Full).await? else {
                continue;
            };
            let digest = Digest::sized(*hash, reader.total_bytes());
            if self.room.missing_blobs(&[digest], true).await? == [false] {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// The functions of answers that the client takes.
    fn functions(&self) -> impl Iterator<Item = Function> + use<> {
        let own = self.function;
        digests::functions(&self.call.shared.config)
            .filter(move |function| own.is_none_or(|own| own == *function))
    }

    /// Whether a blob is what the client says it has to be. One that is named by another function has to be read.
    async fn satisfies(&self, digest: &Digest) -> Outcome<bool> {
        let Some(checksums) = &self.qualifiers.checksums else {
            return Ok(true);
        };
        let own = digest.hash.function();
        if checksums.has(&digest.hash) || checksums.iter().all(|hash| hash.function() == own) {
            return Ok(checksums.has(&digest.hash));
        }
        let named = Named {
            digest: *digest,
            certain: true,
        };
        let size = digest.size_bytes.unwrap_or(0);
        let opened = self.room.open_blob(&named, ByteRange::Full).await?;
        let sums = Sums::new(own, Some(checksums), digest.size_bytes);
        let (Some(mut reader), Some(mut sums)) = (opened, sums) else {
            return Ok(false);
        };
        while let Some(chunk) = reader.next_chunk().await {
            sums.update(&chunk?);
        }
        Ok(sums.finish(size, Some(checksums)).is_some())
    }

    fn name(&self, uri: &str) -> Name {
        Name {
            kind: self.kind,
            uri: uri.to_owned(),
            qualifiers: self.qualifiers.telling.clone(),
        }
    }

    /// What is fetched now, from the first URI that has it.
    async fn elsewhere(&self) -> Outcome<Result<Known, Unknown>> {
        let mut last = self.unknown(0, Status::not_found("nothing is known under these URIs"));
        let rules = &self.call.policy.assets;
        let possible = self.kind == Kind::Blob && self.qualifiers.can_be_fetched();
        if rules.fetch_from.is_empty() || !possible {
            return Ok(Err(last));
        }
        for (index, uri) in self.request.uris.iter().enumerate() {
            let Some(target) = Target::parse(uri) else {
                continue;
            };
            if !target.is_allowed(rules) {
                last = self.unknown(index, refused(&Failure::NotAllowed)?);
                continue;
            }
            if !self.room.allows(Scope::Write) {
                let denied = "fetching stores something, which these credentials do not allow";
                last = self.unknown(index, Status::new(GrpcCode::PermissionDenied, denied));
                continue;
            }
            match self.fetch(index, uri).await {
                Ok(digest) => {
                    return Ok(Ok(Known {
                        uri: uri.clone(),
                        digest,
                        expires: None,
                    }));
                }
                Err(failure) => last = self.unknown(index, refused(&failure)?),
            }
        }
        Ok(Err(last))
    }

    async fn fetch(&self, index: usize, uri: &str) -> Result<Digest, Failure> {
        let headers = self.qualifiers.headers(index);
        let wanted = Wanted {
            namespace: self.room.namespace().clone(),
            function: self.function.unwrap_or(Function::Sha256),
            uri: uri.to_owned(),
            // What somebody got with credentials is not for who has none.
            remember_as: headers.is_empty().then(|| self.name(uri)),
            headers,
            checksums: self.qualifiers.checksums.clone(),
        };
        let fetching = &self.call.shared.fetching;
        fetching.fetch(&wanted, self.call.policy, self.time).await
    }

    fn unknown(&self, index: usize, status: Status) -> Unknown {
        Unknown {
            uri: self.request.uris.get(index).cloned().unwrap_or_default(),
            status,
        }
    }

    fn answer(&self, found: Result<Known, Unknown>) -> FetchBlobResponse {
        let known = match found {
            Ok(known) => known,
            Err(unknown) => {
                return FetchBlobResponse {
                    status: Some(unknown.status.to_message()),
                    uri: unknown.uri,
                    ..FetchBlobResponse::default()
                };
            }
        };
        let leased = self.now.plus(LEASE);
        let until = known.expires.map_or(leased, |at| at.min(leased));
        let telling = self.qualifiers.telling.iter();
        let qualifiers = telling.map(|(name, value)| Qualifier {
            name: name.clone(),
            value: value.clone(),
        });
        FetchBlobResponse {
            status: Some(Status::ok().to_message()),
            uri: known.uri,
            qualifiers: qualifiers.collect(),
            expires_at: Some(write_time(until)),
            blob_digest: Some(zimcache_proto::reapi::Digest {
                hash: known.digest.hash.to_hex(),
                size_bytes: known.digest.size_bytes.unwrap_or(0).cast_signed(),
            }),
            digest_function: i32::from(known.digest.hash.function().number()),
        }
    }
}

/// How long fetching may take.
fn time_of(timeout: Option<&prost_types::Duration>) -> Outcome<Duration> {
    let Some(timeout) = timeout else {
        return Ok(USUAL_TIME);
    };
    let time = Duration::try_from(*timeout);
    let time = time.map_err(|_| Status::invalid("the timeout is negative"))?;
    Ok(time.min(MOST_TIME))
}

/// What a client is told of an asset that could not be fetched. What is wrong with this server is no news of the asset:
/// it fails the call.
fn refused(failure: &Failure) -> Outcome<Status> {
    let code = match failure {
        Failure::Store { code, text } => match code {
            Code::TooLarge | Code::Invalid => GrpcCode::ResourceExhausted,
            code => return Err(Status::new(GrpcCode::of(*code), text.clone())),
        },
        Failure::NotAllowed | Failure::ForbiddenAddress => GrpcCode::PermissionDenied,
        Failure::Busy => GrpcCode::ResourceExhausted,
        Failure::Timeout => GrpcCode::DeadlineExceeded,
        Failure::Unreachable | Failure::Silent | Failure::BrokenOff => GrpcCode::Unavailable,
        Failure::Status(status) => match status.as_u16() {
            401 | 403 | 407 => GrpcCode::PermissionDenied,
            429 => GrpcCode::ResourceExhausted,
            408 | 500.. => GrpcCode::Unavailable,
            _ => GrpcCode::NotFound,
        },
        Failure::BadRedirect | Failure::Encoded | Failure::WrongChecksum | Failure::NoSize => {
            GrpcCode::Aborted
        }
    };
    Ok(Status::new(code, failure.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_kept_within_bounds() {
        let time = |seconds| time_of(Some(&prost_types::Duration { seconds, nanos: 0 }));
        assert_eq!(time_of(None).unwrap(), USUAL_TIME);
        assert_eq!(time(7).unwrap(), Duration::from_secs(7));
        assert_eq!(time(1_000_000).unwrap(), MOST_TIME);
        assert!(time(-1).is_err());
    }

    #[test]
    fn what_is_wrong_with_this_server_fails_the_call() {
        let store = |code| Failure::Store {
            code,
            text: "no".to_owned(),
        };
        assert_eq!(
            refused(&store(Code::OutOfSpace)).unwrap_err().code(),
            GrpcCode::ResourceExhausted
        );
        let told = |failure| refused(&failure).unwrap().code();
        assert_eq!(told(store(Code::TooLarge)), GrpcCode::ResourceExhausted);
        assert_eq!(told(Failure::WrongChecksum), GrpcCode::Aborted);
        for (status, code) in [
            (404, GrpcCode::NotFound),
            (403, GrpcCode::PermissionDenied),
            (503, GrpcCode::Unavailable),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            assert_eq!(told(Failure::Status(status)), code, "{status}");
        }
    }
}
