//! Many batches at the same time, over a store that is told when to go on.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bazel_remote_apis::build::bazel::remote::execution::v2::BatchUpdateBlobsRequest;
use bytes::Bytes;
use tokio::sync::watch;
use zimcache_store::{
    BlobStore, BlobWriter, ByteRange, CreateOptions, Reader, Result, Touch, memory::MemoryStore,
};
use zimcache_types::{Digest, Function, Namespace};

use crate::{
    clients::{cas, codes, upload},
    support::{Server, pattern, within},
};

/// Blobs of batches that are written at once.
const AT_ONCE: usize = 1024;
const BATCHES: usize = 8;
const BLOBS: usize = 256;

/// A store whose writes begin when they are wanted and end when they are let.
#[derive(Debug)]
struct Held {
    inner: MemoryStore,
    begun: watch::Sender<usize>,
    may_end: watch::Sender<bool>,
}

#[derive(Debug)]
struct HeldWriter {
    inner: Box<dyn BlobWriter>,
    may_end: watch::Receiver<bool>,
}

#[async_trait]
impl BlobWriter for HeldWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.inner.write(chunk).await
    }

    async fn commit(mut self: Box<Self>) -> Result<u64> {
        self.may_end.wait_for(|may| *may).await.unwrap();
        self.inner.commit().await
    }
}

#[async_trait]
impl BlobStore for Held {
    async fn open(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Reader>> {
        self.inner.open(namespace, digest, range).await
    }

    async fn create(
        &self,
        namespace: &Namespace,
        digest: &Digest,
        options: CreateOptions,
    ) -> Result<Box<dyn BlobWriter>> {
        let inner = self.inner.create(namespace, digest, options).await?;
        self.begun.send_modify(|begun| *begun += 1);
        let may_end = self.may_end.subscribe();
        Ok(Box::new(HeldWriter { inner, may_end }))
    }

    async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
        touch: Touch,
    ) -> Result<Vec<bool>> {
        self.inner.missing(namespace, digests, touch).await
    }

    async fn delete(&self, namespace: &Namespace, digest: &Digest) -> Result<bool> {
        self.inner.delete(namespace, digest).await
    }
}

#[tokio::test]
async fn of_what_many_batches_bring_at_once_some_waits_for_its_turn_and_all_is_stored() {
    let inner = MemoryStore::default();
    let held = Arc::new(Held {
        inner: inner.clone(),
        begun: watch::Sender::new(0),
        may_end: watch::Sender::new(false),
    });
    let server = Server::over(held.clone(), inner, |_| {}).await;
    let batches = (0..BATCHES).map(|batch| {
        let blob = |number: usize| upload(Function::Sha256, &pattern(number as u64, 100));
        let request = BatchUpdateBlobsRequest {
            requests: (batch * BLOBS..(batch + 1) * BLOBS).map(blob).collect(),
            ..BatchUpdateBlobsRequest::default()
        };
        let mut client = cas(&server);
        async move { within(client.batch_update_blobs(request)).await.unwrap() }
    });
    let watching = async {
        let mut begun = held.begun.subscribe();
        begun.wait_for(|begun| *begun == AT_ONCE).await.unwrap();
        let more = begun.wait_for(|begun| *begun > AT_ONCE);
        let more = tokio::time::timeout(Duration::from_millis(300), more).await;
        assert!(more.is_err(), "there is no end to what is written at once");
        held.may_end.send_replace(true);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(batches), watching);
    for answer in answers {
        assert!(codes(answer.get_ref()).iter().all(|code| *code == 0));
    }
    assert_eq!(*held.begun.borrow(), BATCHES * BLOBS);
}
