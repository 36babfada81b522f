//! An S3 bucket, as the tier uses it: whole objects and parts, conditions, ranges, copies, lists.
//!
//! Requests are counted, have deadlines, pass the outage detector, and are retried with full jitter where that is
//! harmless. A conditional write is never retried blindly: a broken connection says nothing about whether it took
//! effect, so its caller looks. Cancellation: dropping any future is safe; an upload in parts that is cut off like that
//! is aborted by the bucket's rules or the sweep.

mod client;
mod list;
mod object;
mod parts;
mod refusal;
mod write;

use std::{future::Future, sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use tokio::time::Instant;
use tracing::Instrument as _;
use zimcache_telemetry::trace;
use zimcache_types::{Clock, Timestamp};

pub(crate) use list::Listed;
pub use object::Object;
pub(crate) use parts::{PART_BYTES, PartSource};
pub(crate) use refusal::Refusal;
pub(crate) use write::{Condition, Copied, sha256};

use crate::{
    BucketSettings, Operation, Outcome, Requests, Result, jitter::Jitter, keys::Keys,
    outage::Outage,
};

/// Attempts at a request that may be repeated.
const ATTEMPTS: u32 = 4;
/// Wait before the first repetition, at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Wait before any repetition, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A body gets a second more for each so many bytes: half a MiB/s is the slowest link we wait for.
const BYTES_PER_SECOND: u64 = 512 << 10;

/// A bucket. Clones share it.
#[derive(Debug, Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    settings: BucketSettings,
    keys: Keys,
    outage: Outage,
    requests: Requests,
    jitter: Jitter,
    clock: Arc<dyn Clock>,
}

/// What a server says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: Timestamp,
    /// The server's name of this content.
    pub etag: Box<str>,
}

/// How a request is treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    operation: Operation,
    /// Size of the body in bytes.
    body_bytes: u64,
    /// A broken connection may be a refusal: some servers refuse a conditional write and hang up.
    conditional: bool,
}

impl Call {
    pub(super) const fn new(operation: Operation) -> Call {
        Call {
            operation,
            body_bytes: 0,
            conditional: false,
        }
    }

    pub(super) const fn with_body(operation: Operation, body_bytes: u64) -> Call {
        Call {
            body_bytes,
            ..Call::new(operation)
        }
    }
}

impl Bucket {
    /// Prepares a client; sends nothing to the bucket. `seed` spreads the waits of different nodes.
    ///
    /// # Errors
    /// `Setting` when the settings cannot be right.
    pub async fn connect(
        settings: BucketSettings,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Bucket> {
        settings.check()?;
        let client = Box::pin(client::connect(&settings)).await?;
        let shared = Shared {
            client,
            keys: Keys::new(&settings.prefix),
            settings,
            outage: Outage::new(seed),
            requests: Requests::default(),
            jitter: Jitter::new(seed.rotate_left(32)),
            clock,
        };
        Ok(Bucket {
            shared: Arc::new(shared),
        })
    }

    /// What was asked of the server.
    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// How it is set up.
    pub fn settings(&self) -> &BucketSettings {
        &self.shared.settings
    }

    /// Whether the server answered last.
    pub fn is_reachable(&self) -> bool {
        !self.shared.outage.is_on()
    }

    pub(crate) fn outage(&self) -> &Outage {
        &self.shared.outage
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    pub(crate) fn jitter(&self) -> &Jitter {
        &self.shared.jitter
    }

    /// How long ago an object was written.
    pub(crate) fn age(&self, modified: Timestamp) -> Duration {
        self.shared.clock.now().since(modified)
    }

    fn client(&self) -> &Client {
        &self.shared.client
    }

    fn name(&self) -> &str {
        &self.shared.settings.bucket
    }

    /// Makes sure that the bucket exists; makes it when it does not.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    pub async fn ensure_bucket(&self) -> Result<()> {
        let made = match self.head_bucket().await {
            Err(Refusal::Absent | Refusal::NoBucket) => self.make_bucket().await,
            other => other,
        };
        made.map_err(|refusal| refusal.into_error(Operation::Bucket))
    }

    /// Asks whether the bucket is there and may be used.
    ///
    /// # Errors
    /// `NoBucket`, `Unreachable`, `Refused`.
    pub async fn check(&self) -> Result<()> {
        match self.head_bucket().await {
            Err(Refusal::Absent) => Err(crate::Error::NoBucket),
            other => other.map_err(|refusal| refusal.into_error(Operation::Bucket)),
        }
    }

    async fn head_bucket(&self) -> Result<(), Refusal> {
        let ask = || async {
            let request = self.client().head_bucket().bucket(self.name()).send();
            self.call(Call::new(Operation::Bucket), request).await
        };
        self.retried(ask).await.map(|_| ())
    }

    async fn make_bucket(&self) -> Result<(), Refusal> {
        let mut request = self.client().create_bucket().bucket(self.name());
        let region = self.shared.settings.region.as_deref();
        if let Some(region) = region.filter(|region| *region != "us-east-1") {
            let place = CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region));
            request = request.create_bucket_configuration(place.build());
        }
        let made = self
            .call(Call::new(Operation::Bucket), request.send())
            .await;
        match made {
            // Another node was faster.
            Ok(_) | Err(Refusal::Busy) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Sends a request once.
    async fn call<T, E, F>(&self, call: Call, request: F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let Some(pass) = self.shared.outage.enter() else {
            self.shared.requests.add_held_back();
            return Err(Refusal::Held);
        };
        self.shared.requests.add(call.operation);
        let began = Instant::now();
        let limit = self.shared.settings.request_timeout
            + Duration::from_secs(call.body_bytes / BYTES_PER_SECOND);
        let request = Box::pin(request).instrument(trace::asking(call.operation.span()));
        let answer = tokio::time::timeout(limit, request).await;
        let answer = match answer {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(Refusal::of(&error)),
            Err(_) => Err(Refusal::Unreachable("no answer in time".into())),
        };
        let outcome = answer
            .as_ref()
            .map_or_else(Refusal::outcome, |_| Outcome::Done);
        let requests = &self.shared.requests;
        requests.ended(call.operation, outcome, began.elapsed());
        match &answer {
            Err(refusal) if !refusal.is_answer() => {
                tracing::debug!(?refusal, operation = call.operation.as_str(), "no answer");
                let says_nothing = call.conditional && matches!(refusal, Refusal::Broken(_));
                if !says_nothing {
                    pass.report(false);
                }
            }
            _ => pass.report(true),
        }
        answer
    }

    /// Repeats a request that may be repeated. Makes a missing bucket if that is wanted.
    async fn retried<T, F, R>(&self, mut request: F) -> Result<T, Refusal>
    where
        F: FnMut() -> R + Send,
        R: Future<Output = Result<T, Refusal>> + Send,
    {
        let (mut failures, mut last) = (0, None);
        loop {
            let refusal = match request().await {
                Ok(answer) => return Ok(answer),
                // What made the server count as away says more.
                Err(Refusal::Held) => return Err(last.unwrap_or(Refusal::Held)),
                Err(refusal) => refusal,
            };
            let wanted = self.shared.settings.create_bucket && failures == 0;
            let made = wanted && refusal == Refusal::NoBucket && self.make_bucket().await.is_ok();
            failures += 1;
            if failures >= ATTEMPTS || !(made || refusal.is_passing()) {
                return Err(refusal);
            }
            last = Some(refusal);
            self.pause(failures - 1).await;
        }
    }

    /// Waits before a repetition.
    pub(crate) async fn pause(&self, failures: u32) {
        let wait = self.shared.jitter.wait(FIRST_WAIT, failures, LONGEST_WAIT);
        tokio::time::sleep(wait).await;
    }
}

/// The time of the server's answer; the epoch where it does not say.
fn timestamp(time: Option<&aws_sdk_s3::primitives::DateTime>) -> Timestamp {
    let millis = time.and_then(|time| time.to_millis().ok()).unwrap_or(0);
    Timestamp(u64::try_from(millis).unwrap_or(0))
}
