//! What one open connection is doing and since when, and which of its waits have taken too long.
//!
//! Requests only store into atomics of their connection; one task per gateway (`connections`) looks at all of them a
//! few times per shortest timeout. So no request pays for a timer, and every wait has one: the first byte, a header,
//! the pause between requests, a body that pauses either way. Not here: sockets (`socket`) and HTTP (`connection`).
//! Lock order: `Connections::open`, then `Conn::stalls`, then `Stall::waker`; nothing else is taken under them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use zimcache_config::GatewayConfig;

/// How long a connection that is being closed may go on sending before it is cut.
const LINGER_MILLIS: u64 = 2_000;
/// How long a connection that is kept may be idle, where the configuration allows less.
const KEPT_MILLIS: u64 = 24 * 60 * 60 * 1_000;

/// Time between two streams of a connection that are reset: h2 remembers 50 of them for a second.
const RESETS_APART: Duration = Duration::from_millis(25);

/// Milliseconds since the gateway was made, refreshed by the watch; starts at 1, so that 0 can mean "never".
#[derive(Debug)]
pub(crate) struct CoarseClock {
    start: Instant,
    now: AtomicU64,
}

impl CoarseClock {
    pub(crate) fn new() -> CoarseClock {
        CoarseClock {
            start: Instant::now(),
            now: AtomicU64::new(1),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn tick(&self) -> u64 {
        let now = 1 + millis(self.start.elapsed());
        self.now.store(now, Ordering::Relaxed);
        now
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A TCP peer that speaks TLS.
    Tls(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// Its address; none on a Unix socket.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) | Peer::Tls(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }

    /// Whether it is on this machine.
    pub(crate) fn is_local(self) -> bool {
        self.address().is_none_or(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) | Peer::Tls(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing was received yet.
    Fresh,
    /// A header is coming in.
    Head,
    /// Requests are under way.
    Busy,
    /// Between requests.
    Idle,
    /// Answered and closed on our side; what still comes in is thrown away.
    Linger,
}

const PHASES: [Phase; 5] = [
    Phase::Fresh,
    Phase::Head,
    Phase::Busy,
    Phase::Idle,
    Phase::Linger,
];

/// What a connection's task was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Command {
    /// Go on.
    Run,
    /// Finish the requests under way, take no more.
    Finish,
    /// Drop everything now.
    Cut,
}

/// A wait for the other side in the middle of a body.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    since: AtomicU64,
    writing: AtomicBool,
    expired: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Stall {
    /// Records that a body waits for its next chunk; true when that has taken too long.
    pub(crate) fn wait_read(&self, conn: &Conn, cx: &Context<'_>) -> bool {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.writing.store(false, Ordering::Relaxed);
            self.since.store(conn.clock.now(), Ordering::Release);
        }
        *self.waker.lock() = Some(cx.waker().clone());
        self.expired.load(Ordering::Acquire)
    }

    /// Records that a chunk was handed out and the next one was not asked for yet.
    pub(crate) fn wait_write(&self, conn: &Conn) {
        self.writing.store(true, Ordering::Relaxed);
        self.since.store(conn.clock.now(), Ordering::Release);
    }

    /// Records that the body moved on.
    pub(crate) fn moved(&self) {
        self.since.store(0, Ordering::Release);
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    clock: Arc<CoarseClock>,
    opened: u64,
    phase: AtomicU8,
    since: AtomicU64,
    read_at: AtomicU64,
    wrote_at: AtomicU64,
    blocked_since: AtomicU64,
    running: AtomicU32,
    http2: AtomicBool,
    refused: AtomicBool,
    kept: AtomicBool,
    command: AtomicU8,
    waker: OnceLock<Waker>,
    stall: Arc<Stall>,
    stalls: Mutex<Vec<Arc<Stall>>>,
    next_reset: Mutex<Option<tokio::time::Instant>>,
}

impl Conn {
    pub(crate) fn new(id: u64, peer: Peer, clock: Arc<CoarseClock>) -> Conn {
        let now = clock.now();
        let stall = Arc::new(Stall::default());
        Conn {
            id,
            peer,
            clock,
            opened: now,
            phase: AtomicU8::new(Phase::Fresh as u8),
            since: AtomicU64::new(now),
            read_at: AtomicU64::new(now),
            wrote_at: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            running: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            command: AtomicU8::new(Command::Run as u8),
            waker: OnceLock::new(),
            stalls: Mutex::new(vec![Arc::clone(&stall)]),
            stall,
            next_reset: Mutex::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)) % PHASES.len()]
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.since.store(self.clock.now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The connection speaks HTTP/2: bytes between requests are frames, not the start of a header.
    pub(crate) fn speaks_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// A request was answered before its body was read: the peer may still be sending.
    pub(crate) fn refuse_early(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refused_early(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The peer never opens another connection when this one was closed: it may stay idle, and what it sends is read
    /// to the end even when it is refused.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    pub(crate) fn on_read(&self) {
        self.read_at.store(self.clock.now(), Ordering::Relaxed);
        if matches!(self.phase(), Phase::Fresh | Phase::Idle) && !self.is_http2() {
            self.enter(Phase::Head);
        }
    }

    pub(crate) fn on_written(&self) {
        self.wrote_at.store(self.clock.now(), Ordering::Relaxed);
        self.blocked_since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn on_blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since
                .store(self.clock.now(), Ordering::Relaxed);
        }
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.phase.store(Phase::Busy as u8, Ordering::Relaxed);
    }

    /// A request ended.
    pub(crate) fn end(&self) {
        if self.running.fetch_sub(1, Ordering::Relaxed) == 1 && self.phase() == Phase::Busy {
            self.enter(Phase::Idle);
        }
    }

    /// The stall of a request's body: HTTP/1 has one body at a time, HTTP/2 has many.
    pub(crate) fn stall(&self) -> Arc<Stall> {
        if !self.is_http2() {
            return Arc::clone(&self.stall);
        }
        let stall = Arc::new(Stall::default());
        self.stalls.lock().push(Arc::clone(&stall));
        stall
    }

    /// Gives a stall back.
    pub(crate) fn release(&self, stall: &Arc<Stall>) {
        stall.moved();
        if self.is_http2() {
            self.stalls
                .lock()
                .retain(|known| !Arc::ptr_eq(known, stall));
        }
    }

    /// When one more stream may be reset: everybody who asks gets a time of its own.
    pub(crate) fn next_reset(&self) -> tokio::time::Instant {
        let mut next = self.next_reset.lock();
        let now = tokio::time::Instant::now();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + RESETS_APART);
        turn
    }

    /// Tells the connection's task what to do; never takes a stronger command back.
    pub(crate) fn tell(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// What the task was told. The first call, from the task, registers whom to wake.
    pub(crate) fn told(&self, cx: &Context<'_>) -> Command {
        if self.waker.get().is_none() {
            // Fails only when set already; a connection is polled by one task all its life.
            drop(self.waker.set(cx.waker().clone()));
            fence(Ordering::SeqCst);
        }
        match self.command.load(Ordering::SeqCst) {
            0 => Command::Run,
            1 => Command::Finish,
            _ => Command::Cut,
        }
    }

    pub(crate) fn between_requests(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0 && self.blocked_since.load(Ordering::Relaxed) == 0
    }

    /// Since when nothing useful happened: a ping is no use.
    pub(crate) fn idle_since(&self) -> u64 {
        let since = self.since.load(Ordering::Relaxed);
        if self.is_http2() {
            since
        } else {
            since.max(self.wrote_at.load(Ordering::Relaxed))
        }
    }

    pub(crate) fn silent_since(&self) -> u64 {
        self.read_at
            .load(Ordering::Relaxed)
            .max(self.wrote_at.load(Ordering::Relaxed))
    }

    /// Enforces the limits at the time `now`.
    pub(crate) fn check(&self, now: u64, limits: &Limits) {
        let waited = |since: u64| now.saturating_sub(since);
        let in_phase = waited(self.since.load(Ordering::Relaxed));
        // HTTP/1 has no way to say goodbye: a request could be on its way to the connection that is closed.
        if self.is_http2() && waited(self.opened) > limits.age_of(self.id) {
            self.tell(Command::Finish);
        }
        match self.phase() {
            Phase::Fresh if in_phase > limits.first_byte => self.tell(Command::Cut),
            Phase::Head if in_phase > limits.header => self.tell(Command::Cut),
            Phase::Linger if in_phase > LINGER_MILLIS => self.tell(Command::Cut),
            Phase::Idle => self.check_idle(now, limits),
            Phase::Fresh | Phase::Head | Phase::Linger | Phase::Busy => {}
        }
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && waited(blocked) > limits.body {
            self.tell(Command::Cut);
        }
        for stall in self.stalls.lock().iter() {
            let since = stall.since.load(Ordering::Acquire);
            if since == 0 || waited(since) <= limits.body {
                continue;
            }
            if stall.writing.load(Ordering::Relaxed) {
                self.tell(Command::Cut);
            } else {
                stall.expired.store(true, Ordering::Release);
                let waker = stall.waker.lock().take();
                waker.iter().for_each(Waker::wake_by_ref);
            }
        }
    }

    fn check_idle(&self, now: u64, limits: &Limits) {
        let wrote = self.wrote_at.load(Ordering::Relaxed);
        let idle = now.saturating_sub(self.since.load(Ordering::Relaxed).max(wrote));
        let limit = if self.is_kept() {
            limits.idle.max(KEPT_MILLIS)
        } else {
            limits.idle
        };
        if idle > limit.saturating_add(limits.body) {
            self.tell(Command::Cut);
        } else if idle > limit {
            // HTTP/2 says goodbye first; an idle HTTP/1 connection is closed by the same command at once.
            self.tell(Command::Finish);
        }
    }
}

/// How long each kind of wait may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    first_byte: u64,
    header: u64,
    idle: u64,
    body: u64,
    age: Option<u64>,
}

impl Limits {
    pub(crate) fn new(config: &GatewayConfig) -> Limits {
        Limits {
            first_byte: millis(config.first_byte_timeout),
            header: millis(config.header_timeout),
            idle: millis(config.idle_timeout),
            body: millis(config.body_timeout),
            age: config.max_connection_age.map(millis),
        }
    }

    /// How long a connection may live: each a little longer or shorter, so that those opened together do not all come
    /// back together.
    fn age_of(&self, id: u64) -> u64 {
        let Some(age) = self.age else {
            return u64::MAX;
        };
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        (age - age / 10).saturating_add(age / 5 * spread / 1024)
    }

    /// The shortest of them.
    pub(crate) fn shortest(&self) -> u64 {
        let bodies = self.idle.min(self.body);
        self.first_byte.min(self.header).min(bodies)
    }
}
