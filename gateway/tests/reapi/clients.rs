//! Clients of the cache's own services, with the limits that tonic has by default, and the messages they send.

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    self as reapi, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, FindMissingBlobsRequest,
    action_cache_client::ActionCacheClient, batch_update_blobs_request::Request as Upload,
    capabilities_client::CapabilitiesClient,
    content_addressable_storage_client::ContentAddressableStorageClient,
};
use prost::Message;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use zimcache_store::BlobStore as _;
use zimcache_types::{Digest, Function, Namespace};

use crate::support::{Outcome, Server, channel, within};

pub(crate) type Cas = ContentAddressableStorageClient<Channel>;
pub(crate) type Actions = ActionCacheClient<Channel>;

pub(crate) fn cas(server: &Server) -> Cas {
    Cas::new(channel(server.address))
}

pub(crate) fn actions(server: &Server) -> Actions {
    Actions::new(channel(server.address))
}

pub(crate) fn capabilities(server: &Server) -> CapabilitiesClient<Channel> {
    CapabilitiesClient::new(channel(server.address))
}

/// Every function that is verified unless told otherwise.
pub(crate) const FUNCTIONS: [Function; 7] = [
    Function::Sha256,
    Function::Blake3,
    Function::Sha1,
    Function::Sha384,
    Function::Sha512,
    Function::Sha256Tree,
    Function::GitSha1,
];

/// A request with a bearer token.
pub(crate) fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The digest of a blob under a function.
pub(crate) fn digest_under(function: Function, blob: &[u8]) -> reapi::Digest {
    let digest = Digest::of(function, blob);
    reapi::Digest {
        hash: digest.hash.to_hex(),
        size_bytes: i64::try_from(blob.len()).unwrap(),
    }
}

/// A blob of a batch, uncompressed.
pub(crate) fn upload(function: Function, blob: &[u8]) -> Upload {
    Upload {
        digest: Some(digest_under(function, blob)),
        data: blob.to_vec(),
        compressor: 0,
    }
}

/// Stores blobs in one batch; the function is named.
pub(crate) async fn store(server: &Server, instance: &str, function: Function, blobs: &[&[u8]]) {
    let request = BatchUpdateBlobsRequest {
        instance_name: instance.to_owned(),
        requests: blobs.iter().map(|blob| upload(function, blob)).collect(),
        digest_function: function.number().into(),
    };
    let answer = within(cas(server).batch_update_blobs(request)).await;
    assert_eq!(codes(&answer.unwrap().into_inner()), vec![0; blobs.len()]);
}

/// The codes of a batch; a status that is absent is a failure.
pub(crate) fn codes(answer: &BatchUpdateBlobsResponse) -> Vec<i32> {
    let statuses = answer.responses.iter().map(|one| one.status.as_ref());
    statuses.map(|status| status.unwrap().code).collect()
}

/// Which of these digests are missing; the function is named unless it is `None`.
pub(crate) async fn missing(
    server: &Server,
    function: Option<Function>,
    digests: Vec<reapi::Digest>,
) -> Outcome<Vec<reapi::Digest>> {
    let request = FindMissingBlobsRequest {
        blob_digests: digests,
        digest_function: function.map_or(0, |function| function.number().into()),
        ..FindMissingBlobsRequest::default()
    };
    let answer = within(cas(server).find_missing_blobs(request)).await?;
    Ok(answer.into_inner().missing_blob_digests)
}

/// Removes a blob behind everybody's back.
pub(crate) async fn lose(server: &Server, function: Function, blob: &[u8]) {
    let (namespace, digest) = (Namespace::default(), Digest::of(function, blob));
    let removed = server.store.delete(&namespace, &digest).await;
    assert!(removed.unwrap(), "it was not there");
}

/// The details of a refusal: type and value of each.
pub(crate) fn details(status: &Status) -> Vec<(String, Vec<u8>)> {
    let encoded = status.details();
    let decoded = bazel_remote_apis::google::rpc::Status::decode(encoded).unwrap();
    assert_eq!(decoded.code, i32::from(status.code()));
    assert_eq!(decoded.message, status.message());
    let details = decoded.details.into_iter();
    details.map(|any| (any.type_url, any.value)).collect()
}

/// A field of bytes, as it is encoded.
pub(crate) fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    prost::encoding::bytes::encode(number, &value.to_vec(), &mut encoded);
    encoded
}

/// A call whose messages are bytes, so that nothing is lost in them.
pub(crate) async fn raw(server: &Server, path: &'static str, message: Vec<u8>) -> Outcome<Vec<u8>> {
    let mut client = Grpc::new(channel(server.address));
    within(client.ready()).await.unwrap();
    let path = PathAndQuery::from_static(path);
    let answer = within(client.unary(Request::new(message), path, Raw)).await?;
    Ok(answer.into_inner())
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}
