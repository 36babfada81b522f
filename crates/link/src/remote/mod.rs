//! A node somewhere else, as a [`Peer`].
//!
//! `channel` keeps the connections, each a `connection` with the stream of its `small` reads, `answer` reads answers,
//! `reading` and `writing` are values on their way. Every wait has an end; a node that lets it pass is [`Error::Unreachable`](crate::Error::Unreachable). Cancellation: dropping a
//! call resets its stream, and the node drops what it does for it.

mod answer;
mod channel;
mod connect;
mod connection;
mod reading;
mod small;
mod writing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
pub use connect::{Connect, TcpConnect};
use zimcache_proto::{Message, node};
use zimcache_store::{Pins, RecordKey, Version};
use zimcache_types::Namespace;

use self::{answer::Answer, channel::Channel, writing::Stream};
use crate::{
    Find, Found, ListedBlob, ListedEntry, Listing, Manage, Peer, Presence, Pull, Read, Result,
    Status, StatusQuestion, Tls, Write, Writing,
    wire::{Call, convert, rows},
};

/// How nodes are spoken to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Makes the byte streams.
    pub connect: Arc<dyn Connect>,
    /// The certificates; without them the way is in the clear.
    pub tls: Option<Tls>,
    /// How many connections to a node.
    pub connections: usize,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a node may think about a question.
    pub answer_timeout: Duration,
    /// How long a value may stand still.
    pub idle_timeout: Duration,
    /// How long making a value durable may take.
    pub commit_timeout: Duration,
    /// How long copying, collecting and verifying may take.
    pub work_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect: Arc::new(TcpConnect),
            tls: None,
            connections: 2,
            connect_timeout: Duration::from_millis(250),
            answer_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            commit_timeout: Duration::from_secs(30),
            work_timeout: Duration::from_hours(1),
        }
    }
}

/// A node at an address.
#[derive(Debug, Clone)]
pub struct Remote(Channel);

impl Remote {
    /// The node at an address, as in `https://10.0.0.7:4711`. Connects when it is first asked something.
    pub fn new(address: &str, settings: &Settings) -> Remote {
        Remote(Channel::new(address, settings))
    }

    async fn ask<Q: Message, A: Message + Default>(
        &self,
        call: Call,
        question: &Q,
        patience: Duration,
    ) -> Result<A> {
        Answer::to(&self.0, call, question, patience)
            .await?
            .only()
            .await
    }

    fn waits(&self) -> &Settings {
        self.0.settings()
    }

    async fn list(&self, listing: &Listing) -> Result<node::ListReply> {
        let list = rows::listing_out(listing);
        self.ask(Call::List, &list, self.waits().idle_timeout).await
    }
}

#[async_trait]
impl Peer for Remote {
    async fn read(&self, read: Read) -> Result<Found> {
        reading::read(&self.0, read).await
    }

    async fn write(&self, write: Write) -> Result<Box<dyn Writing>> {
        Ok(Box::new(Stream::begin(&self.0, write).await?))
    }

    async fn find(&self, find: Find) -> Result<Vec<Presence>> {
        let request = convert::find_out(&find);
        let patience = self.waits().answer_timeout;
        let reply: node::FindReply = self.ask(Call::Find, &request, patience).await?;
        if reply.presence.len() != find.keys.len() {
            return Err(self.0.unreachable("it answers for another number of blobs"));
        }
        let presences = reply.presence.iter();
        Ok(presences
            .map(|number| rows::presence_in(i32::from(*number)))
            .collect())
    }

    async fn pull(&self, pull: Pull) -> Result<Vec<bool>> {
        let request = convert::pull_out(&pull);
        let patience = self.waits().work_timeout;
        let reply: node::PullReply = self.ask(Call::Pull, &request, patience).await?;
        if reply.held.len() != pull.keys.len() {
            return Err(self
                .0
                .unreachable("it answers for another number of records"));
        }
        Ok(reply.held)
    }

    async fn settle(&self, records: Vec<(RecordKey, Version)>, pins: Pins) -> Result<()> {
        let records = records.iter();
        let (keys, versions) = records
            .map(|(key, version)| (convert::key_out(key), convert::version_out(*version)))
            .unzip();
        let request = node::SettleRequest {
            keys,
            versions,
            pins: Some(convert::pins_out(pins)),
        };
        let patience = self.waits().commit_timeout;
        let reply: Result<node::SettleReply> = self.ask(Call::Settle, &request, patience).await;
        reply.map(drop)
    }

    async fn delete(&self, epoch: u64, key: RecordKey) -> Result<bool> {
        let request = node::DeleteRequest {
            epoch,
            key: Some(convert::key_out(&key)),
        };
        let patience = self.waits().commit_timeout;
        let reply: node::DeleteReply = self.ask(Call::Delete, &request, patience).await?;
        Ok(reply.found)
    }

    async fn purge(&self, epoch: u64, namespace: Namespace) -> Result<()> {
        let request = node::PurgeRequest {
            epoch,
            namespace: namespace.as_str().to_owned(),
        };
        let patience = self.waits().work_timeout;
        let reply: Result<node::PurgeReply> = self.ask(Call::Purge, &request, patience).await;
        reply.map(drop)
    }

    async fn list_entries(&self, listing: Listing) -> Result<Vec<ListedEntry>> {
        let reply = self.list(&listing).await?;
        Ok(reply.entries.into_iter().map(rows::entry_in).collect())
    }

    async fn list_blobs(&self, listing: Listing) -> Result<Vec<ListedBlob>> {
        let reply = self.list(&listing).await?;
        reply.blobs.iter().map(rows::blob_in).collect()
    }

    async fn status(&self, question: StatusQuestion) -> Result<Status> {
        let request = rows::question_out(question);
        let patience = self.waits().answer_timeout;
        rows::status_in(self.ask(Call::Status, &request, patience).await?)
    }

    async fn manage(&self, work: Manage) -> Result<Bytes> {
        let request = rows::manage_out(&work)?;
        let patience = self.waits().work_timeout;
        let reply: node::ManageReply = self.ask(Call::Manage, &request, patience).await?;
        Ok(reply.report)
    }
}
