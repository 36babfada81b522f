//! A relay between a client and a server: one address for the client while servers come and go behind it, and a place
//! to stop a request half-way, so that "killed in the middle" is the middle every time.
//!
//! It moves bytes and counts them, and requests by their first words; it changes nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::server::{Serve, Server};

/// Longest time until a client has got to the place where it is stopped.
const STOP_LIMIT: Duration = Duration::from_mins(2);

/// Where something is stopped half-way.
#[derive(Debug)]
enum Barrier {
    /// Bytes that begin the requests to count, and how many of those may still pass.
    Request { begin: Vec<u8>, passing: u32 },
    /// How many bytes of clients may still pass: for protocols without words.
    Bytes { passing: u64 },
}

/// What the relay is doing, shared by its threads.
#[derive(Debug)]
struct State {
    target: SocketAddr,
    barrier: Option<Barrier>,
    /// Whether a request stands at the barrier.
    holding: bool,
    /// Bytes that clients have sent.
    sent: u64,
    /// Whether clients wait while there is no server.
    patient: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running relay. Its threads end with the process or with their connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Starts a relay to a server.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn to(target: SocketAddr) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                target,
                barrier: None,
                holding: false,
                sent: 0,
                patient: false,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || serve(client, &shared));
            }
        });
        Ok(Relay { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many bytes clients have sent through it.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.lock().sent
    }

    /// Lets `passing` requests that begin with `method` through and stops the next one after its first bytes.
    pub fn stop_after(&self, method: &str, passing: u32) {
        let begin = format!("{method} /").into_bytes();
        self.stop_at(Barrier::Request { begin, passing });
    }

    /// Lets so many more bytes of clients through, on whatever connections, and stops the one that goes on.
    pub fn stop_after_bytes(&self, passing: u64) {
        self.stop_at(Barrier::Bytes { passing });
    }

    fn stop_at(&self, barrier: Barrier) {
        let mut state = self.shared.lock();
        state.barrier = Some(barrier);
        state.holding = false;
    }

    /// From now on, who connects while there is no server waits for the next one, as behind a proxy that holds
    /// connections; else the connection is closed, as by a server that was killed.
    pub fn wait_for_servers(&self) {
        self.shared.lock().patient = true;
    }

    /// Waits until a request has been stopped half-way.
    fn wait_until_stopped(&self, limit: Duration) -> Result<()> {
        let state = self.shared.lock();
        let (state, wait) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !state.holding)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if wait.timed_out() {
            bail!("no request came to be stopped within {limit:?}");
        }
        Ok(())
    }

    /// Sends new connections to another server and lets the stopped request go on, into the void if its server is gone.
    pub fn point_to(&self, target: SocketAddr) {
        let mut state = self.shared.lock();
        state.target = target;
        state.barrier = None;
        state.holding = false;
        self.shared.changed.notify_all();
    }
}

/// Runs a client through a relay that has been told where to stop, kills the server (`kill -9`) when that place is
/// reached, and starts it again on the same store for the rest of the client's run.
///
/// # Errors
/// When the place is never reached, the server cannot be started again, or the client fails.
pub fn killed_half_way<T: Send>(
    relay: &Relay,
    serve: &Serve,
    server: Server,
    client: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Server)> {
    killed_with(0, relay, serve, server, client)
}

/// The same, with so many bytes on the disk at least when the server is killed.
///
/// # Errors
/// As [`killed_half_way`]; when the disk does not get that far.
pub fn killed_with<T: Send>(
    disk_bytes: u64,
    relay: &Relay,
    serve: &Serve,
    server: Server,
    client: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Server)> {
    std::thread::scope(|scope| {
        let client = scope.spawn(client);
        let restart = || {
            relay.wait_until_stopped(STOP_LIMIT)?;
            wait_until_written(&server, disk_bytes)?;
            server.kill_9()?;
            let server = serve.start()?;
            relay.point_to(server.address());
            anyhow::Ok(server)
        };
        let server = restart();
        let done = client.join().map_err(|_| anyhow!("the client panicked"))?;
        Ok((done.context("a client whose server died")?, server?))
    })
}

/// What has arrived is on a slow disk a while later.
fn wait_until_written(server: &Server, bytes: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let written = server.stats()?["written_disk_bytes"].as_u64();
        if written.context("written_disk_bytes")? >= bytes {
            return Ok(());
        }
        let waits = start.elapsed() < STOP_LIMIT;
        ensure!(waits, "the disk does not get to {bytes} bytes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn serve(client: TcpStream, shared: &Shared) {
    let Some(server) = connect(shared) else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // An ended connection is the end of the copy, however it ended.
            let _ = io::copy(&mut &server_again, &mut &client_again);
            let _ = client_again.shutdown(Shutdown::Both);
        });
        let _ = forward(&client, &server, shared);
        let _ = server.shutdown(Shutdown::Write);
    });
}

fn connect(shared: &Shared) -> Option<TcpStream> {
    let mut state = shared.lock();
    loop {
        if let Ok(server) = TcpStream::connect(state.target) {
            return Some(server);
        }
        if !state.patient {
            return None;
        }
        let waited = shared.changed.wait_timeout(state, STOP_LIMIT);
        let (changed, wait) = waited.unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            return None;
        }
        state = changed;
    }
}

/// Copies what the client sends, until a request has to be stopped.
fn forward(mut client: &TcpStream, mut server: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let stop = {
            let mut state = shared.lock();
            state.sent += length as u64;
            stop_in(&buffer[..length], &mut state)
        };
        let sent = stop.unwrap_or(length);
        server.write_all(&buffer[..sent])?;
        if stop.is_some() {
            wait_at_barrier(shared);
            server.write_all(&buffer[sent..length])?;
        }
    }
}

/// Where in these bytes to stop.
fn stop_in(bytes: &[u8], state: &mut State) -> Option<usize> {
    let stop = match state.barrier.as_mut()? {
        Barrier::Request { begin, passing } => stop_in_request(bytes, begin, passing),
        Barrier::Bytes { passing } => stop_in_bytes(bytes, passing),
    };
    if stop.is_some() {
        state.barrier = None;
        state.holding = true;
    }
    stop
}

/// Where the request begins that must be stopped: some bytes later, so that the server has seen it.
/// Clients send the first words of a request in one piece, so nothing is looked for across reads.
fn stop_in_request(bytes: &[u8], begin: &[u8], passing: &mut u32) -> Option<usize> {
    let starts = bytes.windows(begin.len()).enumerate();
    for (at, _) in starts.filter(|(_, window)| *window == begin) {
        if *passing == 0 {
            return Some(at + begin.len());
        }
        *passing -= 1;
    }
    None
}

fn stop_in_bytes(bytes: &[u8], passing: &mut u64) -> Option<usize> {
    let length = bytes.len() as u64;
    if length <= *passing {
        *passing -= length;
        return None;
    }
    usize::try_from(*passing).ok()
}

fn wait_at_barrier(shared: &Shared) {
    shared.changed.notify_all();
    let state = shared.lock();
    let held = |state: &mut State| state.holding;
    drop(shared.changed.wait_while(state, held));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(barrier: Barrier) -> State {
        State {
            target: SocketAddr::from(([127, 0, 0, 1], 1)),
            barrier: Some(barrier),
            holding: false,
            sent: 0,
            patient: false,
        }
    }

    #[test]
    fn the_request_after_those_that_may_pass_is_stopped_half_way() {
        let mut state = state(Barrier::Request {
            begin: b"PUT /".to_vec(),
            passing: 1,
        });
        assert_eq!(stop_in(b"GET /a HTTP/1.1\r\n\r\n", &mut state), None);
        assert_eq!(stop_in(b"PUT /a HTTP/1.1\r\n\r\n", &mut state), None);
        assert_eq!(stop_in(b"PUT /b HTTP/1.1\r\n\r\n", &mut state), Some(5));
        assert!(state.holding);
        assert_eq!(stop_in(b"PUT /c HTTP/1.1\r\n\r\n", &mut state), None);
    }

    #[test]
    fn the_byte_after_those_that_may_pass_is_stopped() {
        let mut state = state(Barrier::Bytes { passing: 10 });
        assert_eq!(stop_in(b"sixsix", &mut state), None);
        assert_eq!(stop_in(b"four", &mut state), None);
        assert!(!state.holding);
        assert_eq!(stop_in(b"more", &mut state), Some(0));
        assert!(state.holding);
        assert_eq!(stop_in(b"more", &mut state), None);
    }
}
