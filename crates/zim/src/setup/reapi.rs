//! What the tools of the Remote Execution API share: how they name a server, and the check.
//!
//! The check speaks gRPC as they do: capabilities, a blob, an action result that names it, and both back again. A tool
//! that keeps its own index in the Remote Asset API (BuildStream) asks for that, too. What can be deleted is, over HTTP.

use http::Method;
use zimcache_proto::{
    Message,
    asset::{FetchBlobRequest, FetchBlobResponse, PushBlobRequest},
    bytestream::{ReadRequest, ReadResponse, WriteRequest, WriteResponse},
    reapi::{
        ActionResult, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
        BatchUpdateBlobsResponse, Digest, ExecutedActionMetadata, FindMissingBlobsRequest,
        FindMissingBlobsResponse, GetActionResultRequest, GetCapabilitiesRequest,
        ServerCapabilities, UpdateActionResultRequest, batch_update_blobs_request, digest_function,
    },
    status::GrpcCode,
};

use super::{
    check::{Outcome, Probe, same},
    snippet::{Cache, Credentials, FilePart, Merge, Part, Place, TOKEN_VARIABLE},
};
use crate::{
    error::{Error, Result},
    remote::{Called, Server},
};

const CAPABILITIES: &str = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";
const GET_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
const UPDATE_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
const FIND_MISSING: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
const BATCH_UPDATE: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
const BATCH_READ: &str =
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
const WRITE: &str = "/google.bytestream.ByteStream/Write";
const READ: &str = "/google.bytestream.ByteStream/Read";
const PUSH: &str = "/build.bazel.remote.asset.v1.Push/PushBlob";
const FETCH: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";

/// How the action result of the check is recognized.
const EXIT_CODE: i32 = 7;

/// Where tools find a token that read it from a file, below the home.
pub(super) const TOKEN_FILE: &str = ".config/zimcache/access-token";
/// What the C++ clients do with it.
pub(super) const NEEDS_TLS: &str =
    "With a token it has to be https: the client refuses to start otherwise.";

/// How a tool sends and reads blobs that are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blobs {
    /// All of them by ByteStream.
    Streamed,
    /// Many in one call.
    Batched,
}

/// The server as `grpc://host:port`, or `grpcs://` where it speaks TLS.
pub(super) fn url(cache: &Cache) -> String {
    let scheme = if cache.is_https() { "grpcs" } else { "grpc" };
    format!("{scheme}://{}", cache.authority())
}

/// The file with the token, or the command that fills it, where there is one.
pub(super) fn token_file(cache: &Cache) -> Option<Part> {
    match &cache.credentials {
        Credentials::None => None,
        Credentials::Variable => Some(Part::Command(format!(
            "(umask 077; mkdir -p ~/.config/zimcache; printenv {TOKEN_VARIABLE} >~/{TOKEN_FILE})"
        ))),
        Credentials::Given(token) => Some(Part::File(FilePart {
            place: Place::Home,
            path: TOKEN_FILE,
            comment: ("# ", ""),
            merge: Merge::Ours,
            text: format!("{}\n", token.reveal()),
            secret: true,
        })),
    }
}

/// A value goes to the server and comes back, over the calls of a tool.
pub(super) fn check(probe: &Probe<'_>, blobs: Blobs) -> Result<Outcome> {
    let calls = Calls::to(probe)?;
    if !calls.may_write()? {
        calls.miss()?;
        return Ok(Outcome::ReadOnly);
    }
    calls.miss()?;
    calls.blob_is_missing()?;
    match blobs {
        Blobs::Streamed => calls.stream()?,
        Blobs::Batched => calls.batch()?,
    }
    calls.action_result()?;
    calls.remove()?;
    Ok(Outcome::Works)
}

/// The same, with a name for the blob in the Remote Asset API.
pub(super) fn check_with_asset(probe: &Probe<'_>) -> Result<Outcome> {
    let calls = Calls::to(probe)?;
    if !calls.may_write()? {
        calls.no_asset()?;
        return Ok(Outcome::ReadOnly);
    }
    calls.no_asset()?;
    calls.batch()?;
    calls.asset()?;
    calls.remove()?;
    Ok(Outcome::Works)
}

/// The calls of a check, all about one random value.
struct Calls<'a> {
    probe: &'a Probe<'a>,
    server: Server,
    instance_name: String,
    digest: Digest,
}

impl<'a> Calls<'a> {
    fn to(probe: &'a Probe<'a>) -> Result<Calls<'a>> {
        Ok(Calls {
            probe,
            server: Server::over_http2(probe.endpoint())?,
            instance_name: probe.namespace().unwrap_or_default().to_owned(),
            digest: Digest {
                hash: probe.hex(64),
                size_bytes: i64::try_from(probe.value().len()).unwrap_or(i64::MAX),
            },
        })
    }

    /// Sends a message to a method that has to answer with code 0.
    fn accepted(&self, method: &str, request: &impl Message) -> Result<Called> {
        let called = self.server.call(method, &request.encode_to_vec())?;
        if called.ended(GrpcCode::Ok) {
            return Ok(called);
        }
        Err(self.server.ended_badly(method, called))
    }

    /// The same for a method that answers with one message.
    fn ask<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A> {
        let called = self.accepted(method, request)?;
        decode(
            method,
            called.messages.first().map_or(&[], |first| &first[..]),
        )
    }

    /// Asks what the server can do for this caller.
    fn may_write(&self) -> Result<bool> {
        let request = GetCapabilitiesRequest {
            instance_name: self.instance_name.clone(),
        };
        let answer: ServerCapabilities = self.ask(CAPABILITIES, &request)?;
        let cache = answer.cache_capabilities.unwrap_or_default();
        let sha256 = i32::from(digest_function::Value::Sha256);
        if !cache.digest_functions.contains(&sha256) {
            return Err(Error::Check("the server does not take SHA-256".to_owned()));
        }
        let updates = cache.action_cache_update_capabilities.unwrap_or_default();
        Ok(updates.update_enabled)
    }

    fn get_result(&self) -> GetActionResultRequest {
        GetActionResultRequest {
            instance_name: self.instance_name.clone(),
            action_digest: Some(self.digest.clone()),
            ..GetActionResultRequest::default()
        }
    }

    /// Reads a result that nobody has stored.
    fn miss(&self) -> Result<()> {
        let request = self.get_result().encode_to_vec();
        let called = self.server.call(GET_RESULT, &request)?;
        if called.ended(GrpcCode::NotFound) {
            return Ok(());
        }
        Err(self.server.ended_badly(GET_RESULT, called))
    }

    fn blob_is_missing(&self) -> Result<()> {
        let request = FindMissingBlobsRequest {
            instance_name: self.instance_name.clone(),
            blob_digests: vec![self.digest.clone()],
            ..FindMissingBlobsRequest::default()
        };
        let answer: FindMissingBlobsResponse = self.ask(FIND_MISSING, &request)?;
        same(
            answer.missing_blob_digests == [self.digest.clone()],
            FIND_MISSING,
        )
    }

    /// A path of the blob, as ByteStream names it.
    fn resource(&self, kind: &str) -> String {
        let Digest { hash, size_bytes } = &self.digest;
        let path = format!("{kind}/{hash}/{size_bytes}");
        match self.instance_name.as_str() {
            "" => path,
            name => format!("{name}/{path}"),
        }
    }

    fn stream(&self) -> Result<()> {
        let value = self.probe.value();
        let write = WriteRequest {
            resource_name: self.resource(&format!("uploads/{}/blobs", self.probe.hex(32))),
            finish_write: true,
            data: value.to_vec().into(),
            ..WriteRequest::default()
        };
        let answer: WriteResponse = self.ask(WRITE, &write)?;
        same(answer.committed_size == self.digest.size_bytes, WRITE)?;
        let read = ReadRequest {
            resource_name: self.resource("blobs"),
            ..ReadRequest::default()
        };
        let mut received = Vec::new();
        for message in self.accepted(READ, &read)?.messages {
            received.extend_from_slice(&decode::<ReadResponse>(READ, &message)?.data);
        }
        same(received == value, READ)
    }

    fn batch(&self) -> Result<()> {
        let update = BatchUpdateBlobsRequest {
            instance_name: self.instance_name.clone(),
            requests: vec![batch_update_blobs_request::Request {
                digest: Some(self.digest.clone()),
                data: self.probe.value().to_vec().into(),
                ..batch_update_blobs_request::Request::default()
            }],
            ..BatchUpdateBlobsRequest::default()
        };
        let answer: BatchUpdateBlobsResponse = self.ask(BATCH_UPDATE, &update)?;
        let stored = answer.responses.first().and_then(|one| one.status.as_ref());
        same(stored.is_some_and(|status| status.code == 0), BATCH_UPDATE)?;
        let read = BatchReadBlobsRequest {
            instance_name: self.instance_name.clone(),
            digests: vec![self.digest.clone()],
            ..BatchReadBlobsRequest::default()
        };
        let answer: BatchReadBlobsResponse = self.ask(BATCH_READ, &read)?;
        let received = answer.responses.first().map(|one| &one.data[..]);
        same(received == Some(self.probe.value()), BATCH_READ)
    }

    /// Stores a result that names the blob, and reads it.
    fn action_result(&self) -> Result<()> {
        let result = ActionResult {
            exit_code: EXIT_CODE,
            stdout_digest: Some(self.digest.clone()),
            execution_metadata: Some(ExecutedActionMetadata::default()),
            ..ActionResult::default()
        };
        let update = UpdateActionResultRequest {
            instance_name: self.instance_name.clone(),
            action_digest: Some(self.digest.clone()),
            action_result: Some(result),
            ..UpdateActionResultRequest::default()
        };
        self.accepted(UPDATE_RESULT, &update)?;
        let stored: ActionResult = self.ask(GET_RESULT, &self.get_result())?;
        let right =
            stored.exit_code == EXIT_CODE && stored.stdout_digest.as_ref() == Some(&self.digest);
        same(right, GET_RESULT)
    }

    fn fetch(&self) -> FetchBlobRequest {
        FetchBlobRequest {
            instance_name: self.instance_name.clone(),
            uris: vec![format!("urn:zimcache:check:{}", self.digest.hash)],
            ..FetchBlobRequest::default()
        }
    }

    /// Asks for a name that nobody has given.
    fn no_asset(&self) -> Result<()> {
        let called = self.server.call(FETCH, &self.fetch().encode_to_vec())?;
        if called.ended(GrpcCode::NotFound) {
            return Ok(());
        }
        if !called.ended(GrpcCode::Ok) {
            return Err(self.server.ended_badly(FETCH, called));
        }
        let first = called.messages.first().map_or(&[][..], |first| &first[..]);
        let answer: FetchBlobResponse = decode(FETCH, first)?;
        let code = answer.status.unwrap_or_default().code;
        same(code == GrpcCode::NotFound.number(), FETCH)
    }

    fn asset(&self) -> Result<()> {
        let push = PushBlobRequest {
            instance_name: self.instance_name.clone(),
            uris: self.fetch().uris,
            blob_digest: Some(self.digest.clone()),
            ..PushBlobRequest::default()
        };
        self.accepted(PUSH, &push)?;
        let answer: FetchBlobResponse = self.ask(FETCH, &self.fetch())?;
        same(answer.blob_digest.as_ref() == Some(&self.digest), FETCH)
    }

    /// Not every tool may delete; what stays harms nothing.
    fn remove(&self) -> Result<()> {
        let any: Vec<u16> = (200..600).collect();
        for folder in ["/ac/", "/cas/"] {
            let path = self.probe.blob_path(folder);
            self.probe.expect(Method::DELETE, &path, &[], &[], &any)?;
        }
        Ok(())
    }
}

fn decode<M: Message + Default>(method: &str, bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| Error::Answer(format!("{method}: {error}")))
}
