//! Connections to one node, made when they are needed and again when they are lost.
//!
//! Calls share them; who finds one missing waits for the attempt under way. Invariant: no lock is held while waiting.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use h2::RecvStream;
use http::Response;
use parking_lot::Mutex;
use tokio::time::timeout;
use zimcache_proto::node::{ReadRequest, SmallReply};
use zimcache_telemetry::task;

use super::{Settings, connect::host_and_port, connection::Connection};
use crate::{
    Error, Result,
    wire::{Call, Outgoing},
};

/// A connection being made: by a task of its own, so that whoever gives up waiting takes nothing from the others.
type Attempt = Shared<BoxFuture<'static, Result<Connection, Box<str>>>>;

/// The way to a node. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Channel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Box<str>,
    settings: Settings,
    slots: Box<[Arc<Slot>]>,
    next: AtomicUsize,
}

/// The place of a connection.
#[derive(Default)]
struct Slot(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    None,
    Connecting(Attempt),
    Open(Connection),
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.lock() {
            State::None => "none",
            State::Connecting(_) => "connecting",
            State::Open(_) => "open",
        };
        f.debug_tuple("Slot").field(&state).finish()
    }
}

impl Channel {
    pub(super) fn new(address: &str, settings: &Settings) -> Channel {
        let slots = (0..settings.connections.max(1)).map(|_| Arc::default());
        Channel(Arc::new(Inner {
            address: address.into(),
            settings: settings.clone(),
            slots: slots.collect(),
            next: AtomicUsize::new(0),
        }))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn unreachable(&self, why: impl Into<Box<str>>) -> Error {
        Error::Unreachable {
            node: self.0.address.clone(),
            why: why.into(),
        }
    }

    /// Returns once there is a connection.
    pub(super) async fn ready(&self) -> Result<()> {
        let slot = &self.0.slots[self.0.next.load(Ordering::Relaxed) % self.0.slots.len()];
        self.connection(slot).await.map(drop)
    }

    /// Sends a request; the answer's headers. A connection that turns out to be lost before the request left is made
    /// again, once.
    pub(super) async fn send(&self, call: Call, body: Outgoing) -> Result<Response<RecvStream>> {
        let slot = self.0.next.fetch_add(1, Ordering::Relaxed) % self.0.slots.len();
        let slot = &self.0.slots[slot];
        let failed = |error: h2::Error| self.unreachable(text(&error));
        let mut calling = self.connection(slot).await?.call(call).await;
        if calling.is_err() {
            slot.forget();
            calling = self.connection(slot).await?.call(call).await;
        }
        let sent = calling.map_err(failed)?.send(body).await;
        sent.map_err(failed)
    }

    /// Asks for a value that may be small; `None` when this has to be asked in a call.
    pub(super) async fn ask_small(&self, read: ReadRequest) -> Result<Option<SmallReply>> {
        // All over one connection: what is asked at the same time leaves together.
        let connection = self.connection(&self.0.slots[0]).await?;
        Ok(connection.small().ask(read).await)
    }

    async fn connection(&self, slot: &Arc<Slot>) -> Result<Connection> {
        let attempt = match &mut *slot.0.lock() {
            State::Open(connection) if !connection.is_over() => return Ok(connection.clone()),
            State::Connecting(attempt) => attempt.clone(),
            state => {
                let attempt = self.begin(slot);
                *state = State::Connecting(attempt.clone());
                attempt
            }
        };
        attempt.await.map_err(|why| self.unreachable(why))
    }

    /// Starts to connect. Its task waits for the lock that the caller holds before it says how it went.
    fn begin(&self, slot: &Arc<Slot>) -> Attempt {
        let (inner, slot) = (Arc::clone(&self.0), Arc::clone(slot));
        let task = task::spawn("link connect", async move {
            let outcome = inner.dial().await;
            *slot.0.lock() = match &outcome {
                Ok(connection) => State::Open(connection.clone()),
                Err(_) => State::None,
            };
            outcome
        });
        let attempt =
            task.map(|joined| joined.unwrap_or_else(|error| Err(error.to_string().into())));
        attempt.boxed().shared()
    }
}

impl Slot {
    fn forget(&self) {
        let state = &mut *self.0.lock();
        if matches!(state, State::Open(_)) {
            *state = State::None;
        }
    }
}

impl Inner {
    async fn dial(&self) -> Result<Connection, Box<str>> {
        let limit = self.settings.connect_timeout;
        let connected = timeout(limit, self.connect()).await;
        connected.unwrap_or_else(|_| Err(format!("no connection within {limit:?}").into()))
    }

    async fn connect(&self) -> Result<Connection, Box<str>> {
        let (target, host) = host_and_port(&self.address).ok_or("it has no host and port")?;
        let said = |error: std::io::Error| -> Box<str> { error.to_string().into() };
        let io = self.settings.connect.connect(target).await.map_err(said)?;
        match &self.settings.tls {
            Some(tls) => Connection::begin(tls.connect(host, io).await.map_err(said)?).await,
            None if self.address.starts_with("https:") => {
                return Err("there are no certificates".into());
            }
            None => Connection::begin(io).await,
        }
        .map_err(|error| text(&error))
    }
}

/// What an error and its causes say.
fn text(error: &h2::Error) -> Box<str> {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text.into()
}
