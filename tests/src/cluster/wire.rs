//! The network between the processes of a cluster, as a fault proxy: every address that others connect to is one of
//! its wires, and every pair of processes is a way with a rule of its own.
//!
//! Bytes on a way that is held wait as they do in a partition, where TCP keeps trying, and go on when it heals. A way
//! that is refused breaks its connections and takes no new ones. Not here: what to break, and when.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::source;
use crate::content::Random;

/// Bytes that are moved at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// What happens to bytes in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// They wait.
    pub held: bool,
    /// Each chunk is late by so much.
    pub delay: Duration,
    /// No more than so many a second.
    pub bytes_per_second: Option<u64>,
    /// One bit of so many bytes, in the mean, is another one.
    pub flip_one_in: Option<u64>,
}

/// What happens on a way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Connections break, and none are made.
    pub refused: bool,
    /// From who connected to who was connected to.
    pub there: Flow,
    /// The answers.
    pub back: Flow,
}

impl Rule {
    /// Nothing arrives and nothing is refused.
    pub fn held() -> Rule {
        let held = Flow {
            held: true,
            ..Flow::default()
        };
        Rule {
            there: held,
            back: held,
            ..Rule::default()
        }
    }

    /// Questions arrive, answers do not.
    pub fn held_back() -> Rule {
        Rule {
            there: Flow::default(),
            ..Rule::held()
        }
    }

    /// Connections break, and none are made.
    pub fn refused() -> Rule {
        Rule {
            refused: true,
            ..Rule::default()
        }
    }

    /// So many bytes a second in either direction.
    pub fn slow(bytes_per_second: u64) -> Rule {
        let slow = Flow {
            bytes_per_second: Some(bytes_per_second),
            ..Flow::default()
        };
        Rule {
            there: slow,
            back: slow,
            ..Rule::default()
        }
    }
}

/// Who connected, and to whom.
type Way = (String, String);

#[derive(Debug)]
struct State {
    rules: HashMap<Way, Rule>,
    processes: BTreeMap<u32, String>,
    targets: HashMap<String, SocketAddr>,
    /// Both ends of each connection.
    connections: HashMap<u64, (Way, TcpStream, TcpStream)>,
    next: u64,
    random: Random,
    flipped: u64,
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

/// All wires of a cluster. Clones are the same ones. Their threads end with the process.
#[derive(Debug, Clone)]
pub struct Wires(Arc<Shared>);

impl Wires {
    /// A network without wires; the seed decides which bits are flipped.
    pub fn new(seed: u64) -> Wires {
        Wires(Arc::new(Shared {
            state: Mutex::new(State {
                rules: HashMap::new(),
                processes: BTreeMap::new(),
                targets: HashMap::new(),
                connections: HashMap::new(),
                next: 0,
                random: Random::new(seed),
                flipped: 0,
            }),
            changed: Condvar::new(),
        }))
    }

    /// The address under which this name is reached from now on.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn address_of(&self, name: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (wires, name) = (self.clone(), name.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (wires, name) = (wires.clone(), name.clone());
                std::thread::spawn(move || wires.serve(client, address, &name));
            }
        });
        Ok(address)
    }

    /// Says where this name really is, and which process it is.
    pub fn is_at(&self, name: &str, process: u32, address: SocketAddr) {
        let state = &mut *self.0.lock();
        state.processes.retain(|_, known| known != name);
        state.processes.insert(process, name.to_owned());
        state.targets.insert(name.to_owned(), address);
    }

    /// Says which process this name is before it can be reached.
    pub fn is_process(&self, name: &str, process: u32) {
        let state = &mut *self.0.lock();
        state.processes.retain(|_, known| known != name);
        state.processes.insert(process, name.to_owned());
    }

    /// Puts a rule on the way between two names.
    pub fn put(&self, from: &str, to: &str, rule: Rule) {
        let way = (from.to_owned(), to.to_owned());
        let state = &mut *self.0.lock();
        if rule.refused {
            for (_, client, server) in state.connections.values().filter(|(on, ..)| *on == way) {
                // They may be gone already.
                let _ = (
                    client.shutdown(Shutdown::Both),
                    server.shutdown(Shutdown::Both),
                );
            }
        }
        state.rules.insert(way, rule);
        self.0.changed.notify_all();
    }

    /// Takes every rule away.
    pub fn heal(&self) {
        self.0.lock().rules.clear();
        self.0.changed.notify_all();
    }

    /// How many bits were flipped until now.
    pub fn flipped(&self) -> u64 {
        self.0.lock().flipped
    }

    fn serve(&self, client: TcpStream, at: SocketAddr, name: &str) {
        let Some((way, server)) = self.connect(&client, at, name) else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let Some(number) = self.note(&way, &client, &server) else {
            return;
        };
        std::thread::scope(|scope| {
            scope.spawn(|| self.carry(&server, &client, &way, |rule| rule.back));
            self.carry(&client, &server, &way, |rule| rule.there);
        });
        self.0.lock().connections.remove(&number);
    }

    /// Whose connection it is, and the connection that it goes on with.
    fn connect(&self, client: &TcpStream, at: SocketAddr, name: &str) -> Option<(Way, TcpStream)> {
        let from = client.peer_addr().ok()?;
        let processes = self.0.lock().processes.clone();
        let from = source::of(from, at, &processes).unwrap_or_default();
        let way = (from, name.to_owned());
        self.flow(&way, |rule| rule.there)?;
        let target = self.0.lock().targets.get(name).copied()?;
        Some((way, TcpStream::connect(target).ok()?))
    }

    fn note(&self, way: &Way, client: &TcpStream, server: &TcpStream) -> Option<u64> {
        let ends = (client.try_clone().ok()?, server.try_clone().ok()?);
        let state = &mut *self.0.lock();
        if state.rules.get(way).is_some_and(|rule| rule.refused) {
            return None;
        }
        state.next += 1;
        let number = state.next;
        state
            .connections
            .insert(number, (way.clone(), ends.0, ends.1));
        Some(number)
    }

    /// What holds on a way now; waits while bytes are held, and is `None` when the way is refused.
    fn flow(&self, way: &Way, which: impl Fn(&Rule) -> Flow) -> Option<Flow> {
        let mut state = self.0.lock();
        loop {
            let rule = state.rules.get(way).copied().unwrap_or_default();
            if rule.refused {
                return None;
            }
            let flow = which(&rule);
            if !flow.held {
                return Some(flow);
            }
            let waited = self.0.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn carry(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        way: &Way,
        which: impl Fn(&Rule) -> Flow,
    ) {
        let mut buffer = vec![0_u8; CHUNK_BYTES];
        loop {
            // However a connection ends, the other side learns that it did, when the way is open.
            let length = from.read(&mut buffer).unwrap_or(0);
            let Some(flow) = self.flow(way, &which) else {
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                return;
            };
            if length == 0 || self.send(&mut to, &mut buffer[..length], flow).is_err() {
                let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
                return;
            }
        }
    }

    fn send(&self, to: &mut &TcpStream, bytes: &mut [u8], flow: Flow) -> io::Result<()> {
        let mut late = flow.delay;
        if let Some(rate) = flow.bytes_per_second {
            late +=
                Duration::from_secs(bytes.len() as u64) / u32::try_from(rate).unwrap_or(u32::MAX);
        }
        if late > Duration::ZERO {
            std::thread::sleep(late);
        }
        if let Some(one_in) = flow.flip_one_in {
            self.flip(bytes, one_in);
        }
        to.write_all(bytes)
    }

    fn flip(&self, bytes: &mut [u8], one_in: u64) {
        let state = &mut *self.0.lock();
        let length = bytes.len() as u64;
        let mut at = state.random.below(one_in * 2);
        while at < length {
            bytes[at as usize] ^= 1 << state.random.below(8);
            state.flipped += 1;
            at += 1 + state.random.below(one_in * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, Result};

    use super::*;

    /// A wire from this process to a socket that sends back what it gets.
    fn wire() -> Result<(Wires, TcpStream)> {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let wires = Wires::new(1);
        wires.is_process("us", std::process::id());
        wires
            .0
            .lock()
            .targets
            .insert("echo".to_owned(), echo.local_addr()?);
        std::thread::spawn(move || {
            for stream in echo.incoming().map_while(Result::ok) {
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        let client = TcpStream::connect(wires.address_of("echo")?)?;
        client.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok((wires, client))
    }

    fn exchange(client: &mut TcpStream, text: [u8; 4]) -> io::Result<[u8; 4]> {
        client.write_all(&text)?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn bytes_on_a_way_that_is_held_arrive_when_it_heals() -> Result<()> {
        let (wires, mut client) = wire()?;
        assert_eq!(exchange(&mut client, *b"1234")?, *b"1234");
        for rule in [Rule::held(), Rule::held_back()] {
            wires.put("us", "echo", rule);
            assert!(exchange(&mut client, *b"5678").is_err());
            wires.put("other", "echo", Rule::refused());
            wires.heal();
            client.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut answer = [0; 4];
            client.read_exact(&mut answer).context("after healing")?;
            assert_eq!(answer, *b"5678");
            client.set_read_timeout(Some(Duration::from_millis(300)))?;
        }
        Ok(())
    }

    #[test]
    fn a_way_that_is_refused_breaks_what_is_open_and_takes_nothing_new() -> Result<()> {
        let (wires, mut client) = wire()?;
        let address = client.peer_addr()?;
        assert_eq!(exchange(&mut client, *b"1234")?, *b"1234");
        wires.put("us", "echo", Rule::refused());
        assert!(exchange(&mut client, *b"5678").is_err());
        let mut again = TcpStream::connect(address)?;
        assert!(exchange(&mut again, *b"5678").is_err());
        wires.put("us", "echo", Rule::default());
        let mut again = TcpStream::connect(address)?;
        assert_eq!(exchange(&mut again, *b"5678")?, *b"5678");
        Ok(())
    }

    #[test]
    fn bits_are_flipped_where_they_are_asked_for() -> Result<()> {
        let (wires, mut client) = wire()?;
        let mut rule = Rule::default();
        rule.back.flip_one_in = Some(1);
        wires.put("us", "echo", rule);
        assert_ne!(exchange(&mut client, *b"1234")?, *b"1234");
        assert!(wires.flipped() > 0);
        Ok(())
    }
}
