//! A client of a gateway: calls at random, and what became of them.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt as _, rngs::StdRng};
use zimcache_cluster::Cluster;
use zimcache_history::{Event, Kind, Op, Outcome};
use zimcache_store::{
    BlobStore, ByteRange, CreateOptions, EntryMeta, EntryStore, Error, Precondition, RecordKey,
    Result, Touch,
};
use zimcache_types::{Code, Digest, EntryKey, EntryKind, Function, Namespace};

use crate::{
    journal::{Begun, now},
    value,
    world::{Stage, World},
};

/// The longest that a client waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// A pause before the sweep tries again.
const RETRY: Duration = Duration::from_millis(500);
/// The namespaces, of which the last one is purged now and then.
const NAMESPACES: [&str; 2] = ["team", "scratch"];
/// The most bytes of a value that are written at once.
const CHUNK: usize = 4_096;

/// A client.
pub(crate) struct Client {
    world: Arc<World>,
    number: u32,
    gateway: u32,
    blobs: Arc<dyn BlobStore>,
    entries: Arc<dyn EntryStore>,
    random: StdRng,
}

/// What a call came to.
type Ended = (Outcome, Option<String>);

impl Client {
    pub(crate) fn new(world: Arc<World>, gateway: u32, cluster: &Cluster) -> Client {
        let mut random = world.random("client");
        Client {
            number: random.random(),
            gateway,
            blobs: cluster.blobs(),
            entries: cluster.entries(),
            random,
            world,
        }
    }

    /// Calls until there is calm.
    pub(crate) async fn work(mut self) {
        let mut put = 0;
        loop {
            let pause = self.world.plan.pause;
            let pause = self.random.random_range(Duration::ZERO..=pause);
            tokio::time::sleep(pause).await;
            if self.world.stage() != Stage::Work {
                return;
            }
            put += 1;
            self.call(put).await;
        }
    }

    async fn call(&mut self, put: u64) {
        let in_scratch = self.random.random_bool(0.2);
        let namespace = NAMESPACES[usize::from(in_scratch)];
        let plan = &self.world.plan;
        let (blobs, entries) = (plan.blobs, plan.entries);
        // A blob in RAM may outlive its deletion for a while, which is promised.
        let (deletes_blobs, purges) = (plan.cluster.ram_bytes == 0, plan.has_purges);
        let blob = value::blob(plan.seed, self.random.random_range(0..blobs));
        let entry = format!("entry-{}", self.random.random_range(0..entries));
        match self.random.random_range(0..100) {
            0..25 => {
                // Unique: no other client has this number.
                let put = (u64::from(self.number) << 24) + put;
                let precondition = if self.random.random_bool(0.15) {
                    Precondition::Absent
                } else {
                    Precondition::None
                };
                self.put_entry(namespace, &entry, put, precondition).await;
            }
            25..50 => drop(self.get_entry(namespace, &entry).await),
            50..65 => self.put_blob(namespace, &blob).await,
            65..83 => {
                let key = value::hash_of(&blob);
                self.get_blob(namespace, &key).await;
            }
            83..91 => self.find(namespace, &blob).await,
            91..95 => self.delete_entry(namespace, &entry).await,
            95..99 if deletes_blobs => self.delete_blob(namespace, &blob).await,
            99 if deletes_blobs && purges => self.purge(NAMESPACES[1]).await,
            _ => {}
        }
    }

    /// Reads everything that was ever put, twice.
    pub(crate) async fn sweep(self) {
        let history = self.world.journal.history();
        let puts = history.events.iter().filter(|event| event.op == Op::Put);
        let keys: BTreeSet<_> = puts
            .map(|event| (event.kind, &event.namespace, &event.key))
            .collect();
        for _ in 0..2 {
            for (kind, namespace, key) in &keys {
                self.read_at_last(*kind, namespace, key).await;
            }
        }
    }

    /// Reads a key for the sweep: as often as it takes while there is time to converge.
    async fn read_at_last(&self, kind: Kind, namespace: &str, key: &str) {
        loop {
            let begun = match kind {
                Kind::Blob => self.get_blob(namespace, key).await,
                Kind::Entry => self.get_entry(namespace, key).await,
            };
            let was_answered = self.world.journal.was_answered(begun);
            if was_answered || now() > self.world.deadline() {
                return self.world.journal.belongs_to_the_sweep(begun);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes a call, and writes down what came of it.
    async fn log(&self, call: Call<'_>, work: impl Future<Output = Ended>) -> Begun {
        let _busy = Arc::clone(&self.world.busy);
        let begun = self.world.journal.begin(Event {
            client: self.number,
            gateway: self.gateway,
            op: call.op,
            kind: call.kind,
            namespace: call.namespace.to_owned(),
            key: call.key.to_owned(),
            value: call.value,
            invoked: now(),
            completed: u64::MAX,
            outcome: Outcome::Unknown,
            sweep: false,
        });
        let timed_out = (Outcome::Unknown, None);
        let ended = tokio::time::timeout(PATIENCE, work).await;
        let (outcome, value) = ended.unwrap_or(timed_out);
        self.world.journal.end(begun, outcome, value);
        begun
    }

    async fn put_entry(&self, namespace: &str, key: &str, put: u64, precondition: Precondition) {
        let (name, body) = (entry_key(namespace, key), value::entry(key, put));
        let call = Call {
            value: Some(value::entry_name(key, put)),
            ..Call::new(Op::Put, Kind::Entry, namespace, key)
        };
        let work = async {
            let meta = EntryMeta::default();
            let mut writer = self.entries.put(&name, meta, precondition, None).await?;
            for chunk in chunks(&body) {
                writer.write(chunk).await?;
            }
            writer.commit().await
        };
        self.log(call, async { written(work.await) }).await;
    }

    async fn get_entry(&self, namespace: &str, key: &str) -> Begun {
        let name = entry_key(namespace, key);
        let call = Call::new(Op::Get, Kind::Entry, namespace, key);
        let work = async {
            match self.entries.get(&name, ByteRange::Full).await? {
                Some(entry) => Ok(Some(entry.value.read_all(u64::MAX).await?)),
                None => Ok(None),
            }
        };
        let read = async { read(work.await, value::name_of_read) };
        self.log(call, read).await
    }

    async fn delete_entry(&self, namespace: &str, key: &str) {
        let name = entry_key(namespace, key);
        let call = Call::new(Op::Delete, Kind::Entry, namespace, key);
        let work = async { deleted(self.entries.delete(&name).await) };
        self.log(call, work).await;
    }

    async fn put_blob(&self, namespace: &str, body: &Bytes) {
        let digest = Digest::of(Function::Sha256, body);
        let key = digest.hash.to_hex();
        let call = Call {
            value: Some(key.clone()),
            ..Call::new(Op::Put, Kind::Blob, namespace, &key)
        };
        let namespace = Namespace::new(namespace).unwrap();
        let work = async {
            let options = CreateOptions::default();
            let mut writer = self.blobs.create(&namespace, &digest, options).await?;
            for chunk in chunks(body) {
                writer.write(chunk).await?;
            }
            writer.commit().await
        };
        self.log(call, async { written(work.await) }).await;
    }

    async fn get_blob(&self, namespace: &str, key: &str) -> Begun {
        let call = Call::new(Op::Get, Kind::Blob, namespace, key);
        let (namespace, digest) = (Namespace::new(namespace).unwrap(), digest(key));
        let work = async {
            let opened = self.blobs.open(&namespace, &digest, ByteRange::Full);
            match opened.await? {
                Some(reader) => Ok(Some(reader.read_all(u64::MAX).await?)),
                None => Ok(None),
            }
        };
        let read = async { read(work.await, |body| value::hash_of(body)) };
        self.log(call, read).await
    }

    async fn find(&self, namespace: &str, body: &Bytes) {
        let digest = Digest::of(Function::Sha256, body);
        let key = digest.hash.to_hex();
        let call = Call::new(Op::Find, Kind::Blob, namespace, &key);
        let namespace = Namespace::new(namespace).unwrap();
        let work = async {
            let asked = [digest];
            match self.blobs.missing(&namespace, &asked, Touch::Lease).await {
                Ok(missing) if missing == [false] => (Outcome::Ok, None),
                Ok(_) => (Outcome::Absent, None),
                Err(_) => (Outcome::Failed, None),
            }
        };
        self.log(call, work).await;
    }

    async fn delete_blob(&self, namespace: &str, body: &Bytes) {
        let digest = Digest::of(Function::Sha256, body);
        let key = digest.hash.to_hex();
        let call = Call::new(Op::Delete, Kind::Blob, namespace, &key);
        let namespace = Namespace::new(namespace).unwrap();
        let work = async { deleted(self.blobs.delete(&namespace, &digest).await) };
        self.log(call, work).await;
    }

    async fn purge(&self, namespace: &str) {
        let call = Call::new(Op::Purge, Kind::Entry, namespace, "");
        let name = Namespace::new(namespace).unwrap();
        let work = async { deleted(self.entries.purge(&name).await.map(|()| true)) };
        self.log(call, work).await;
    }
}

/// A call before it is made.
struct Call<'a> {
    op: Op,
    kind: Kind,
    namespace: &'a str,
    key: &'a str,
    value: Option<String>,
}

impl<'a> Call<'a> {
    const fn new(op: Op, kind: Kind, namespace: &'a str, key: &'a str) -> Call<'a> {
        Call {
            op,
            kind,
            namespace,
            key,
            value: None,
        }
    }
}

fn entry_key(namespace: &str, key: &str) -> EntryKey {
    EntryKey::new(Namespace::new(namespace).unwrap(), EntryKind::Nx, key).unwrap()
}

/// The name of a value inside the cluster.
pub(crate) fn record_key(kind: Kind, namespace: &str, key: &str) -> RecordKey {
    match kind {
        Kind::Blob => RecordKey::blob(&Namespace::new(namespace).unwrap(), &digest(key)),
        Kind::Entry => RecordKey::entry(&entry_key(namespace, key)),
    }
}

fn digest(hex: &str) -> Digest {
    let hash = zimcache_types::Hash::parse(Function::Sha256, hex).unwrap();
    Digest::unsized_(hash)
}

fn chunks(body: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..body.len()).step_by(CHUNK);
    starts.map(|start| body.slice(start..body.len().min(start + CHUNK)))
}

/// The outcome of a put.
fn written(result: Result<u64>) -> Ended {
    let outcome = match result {
        Ok(_) => Outcome::Ok,
        Err(error) => failure(&error),
    };
    (outcome, None)
}

/// The outcome of a deletion or purge.
fn deleted(result: Result<bool>) -> Ended {
    let outcome = match result {
        Ok(true) => Outcome::Ok,
        Ok(false) => Outcome::Absent,
        Err(error) => failure(&error),
    };
    (outcome, None)
}

/// Whether a call that failed may have had its effect.
fn failure(error: &Error) -> Outcome {
    match error.code() {
        Code::Invalid | Code::Conflict | Code::TooLarge | Code::OutOfSpace => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// The outcome of a read.
fn read(result: Result<Option<Bytes>>, name: impl Fn(&Bytes) -> String) -> Ended {
    match result {
        Ok(Some(body)) => (Outcome::Ok, Some(name(&body))),
        Ok(None) => (Outcome::Absent, None),
        Err(_) => (Outcome::Failed, None),
    }
}
