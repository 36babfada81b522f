//! All open connections of a gateway: the cap, the watch over their waits, the drain.
//!
//! At the cap the longest-idle connection is closed rather than a new one refused. Not here: what a connection does
//! with a command (`connection`). Invariant: a connection is counted from its admission until its task ended or it was
//! told to go to make room. Lock order: see `watch`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use zimcache_config::GatewayConfig;
use zimcache_telemetry::metrics::Gauge;

use crate::watch::{CoarseClock, Command, Conn, Limits, Peer};

/// At the connection cap, a connection in the middle of a request may be closed after this much silence.
const SILENT_MILLIS: u64 = 1_000;

/// The open connections of a gateway.
#[derive(Debug)]
pub(crate) struct Connections {
    clock: Arc<CoarseClock>,
    open: Mutex<HashMap<u64, Arc<Conn>>>,
    next_id: AtomicU64,
    limits: Limits,
    most: usize,
    gauge: Gauge,
    finishing: AtomicBool,
    closed: Notify,
}

impl Connections {
    pub(crate) fn new(config: &GatewayConfig, gauge: Gauge) -> Connections {
        Connections {
            clock: Arc::new(CoarseClock::new()),
            open: Mutex::default(),
            next_id: AtomicU64::new(1),
            limits: Limits::new(config),
            most: config.max_connections.max(1),
            gauge,
            finishing: AtomicBool::new(false),
            closed: Notify::new(),
        }
    }

    /// How many connections are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Takes in a new connection. At the cap the longest-idle one is closed for it; where every connection is in the
    /// middle of a lively request, the new one waits.
    pub(crate) async fn admit(self: &Arc<Self>, peer: Peer) -> Place {
        loop {
            let closed = self.closed.notified();
            {
                let mut open = self.open.lock();
                if open.len() < self.most || self.make_room(&mut open) {
                    return self.insert(&mut open, peer);
                }
            }
            tokio::select! {
                () = closed => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    fn insert(self: &Arc<Self>, open: &mut HashMap<u64, Arc<Conn>>, peer: Peer) -> Place {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.clock.tick();
        let conn = Arc::new(Conn::new(id, peer, Arc::clone(&self.clock)));
        if self.finishing.load(Ordering::SeqCst) {
            conn.tell(Command::Finish);
        }
        open.insert(id, Arc::clone(&conn));
        self.gauge.set(open.len().cast_signed() as i64);
        Place {
            all: Arc::clone(self),
            conn,
        }
    }

    fn make_room(&self, open: &mut HashMap<u64, Arc<Conn>>) -> bool {
        let now = self.clock.tick();
        let idle = open.values().filter(|conn| conn.between_requests());
        let longest_idle = idle.min_by_key(|conn| (conn.idle_since(), conn.id));
        let victim = longest_idle.or_else(|| {
            let silent = open.values().min_by_key(|conn| conn.silent_since())?;
            (now.saturating_sub(silent.silent_since()) > SILENT_MILLIS).then_some(silent)
        });
        let Some(victim) = victim.cloned() else {
            return false;
        };
        victim.tell(Command::Cut);
        open.remove(&victim.id);
        true
    }

    fn remove(&self, id: u64) {
        let mut open = self.open.lock();
        open.remove(&id);
        self.gauge.set(open.len().cast_signed() as i64);
        drop(open);
        self.closed.notify_waiters();
    }

    /// Tells every connection, and with `Finish` also those still to come.
    pub(crate) fn tell_all(&self, command: Command) {
        let open = self.open.lock();
        self.finishing.store(true, Ordering::SeqCst);
        open.values().for_each(|conn| conn.tell(command));
    }

    /// Whether no new requests are taken, because the server is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    pub(crate) async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.count() == 0 {
                return;
            }
            tokio::select! {
                () = closed => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Looks at every connection, again and again; never ends.
    pub(crate) async fn watch(&self) {
        let pause = (self.limits.shortest() / 8).clamp(5, 250);
        let mut pace = tokio::time::interval(Duration::from_millis(pause));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let now = self.clock.tick();
            for conn in self.open.lock().values() {
                conn.check(now, &self.limits);
            }
        }
    }
}

/// An open connection's place among all; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<Connections>,
    pub(crate) conn: Arc<Conn>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.remove(self.conn.id);
    }
}
