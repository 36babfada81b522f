//! A gateway of the cluster under test, and the doors through which clients find gateways that come and go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};

use super::program::{Program, Running};
use super::wire::Wires;

/// Where each gateway listens now; `None` while it does not.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    addresses: Arc<Mutex<Vec<Option<SocketAddr>>>>,
    is_service: bool,
}

impl Doors {
    /// One address behind which gateways come and go, as the service of a cluster is one.
    pub fn service(address: SocketAddr) -> Doors {
        Doors {
            addresses: Arc::new(Mutex::new(vec![Some(address)])),
            is_service: true,
        }
    }

    /// Whether clients do as HTTP clients of build tools: what was sent on a kept connection that ended without a word
    /// is sent once more on a new one.
    pub fn is_service(&self) -> bool {
        self.is_service
    }

    /// Where the gateway with this number listens.
    pub fn address(&self, number: usize) -> Option<SocketAddr> {
        self.lock().get(number).copied().flatten()
    }

    /// How many gateways there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<SocketAddr>>> {
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, number: usize, address: Option<SocketAddr>) {
        let mut addresses = self.lock();
        if addresses.len() <= number {
            addresses.resize(number + 1, None);
        }
        addresses[number] = address;
    }
}

/// A gateway. Dropping it kills its process.
#[derive(Debug)]
pub struct Gateway {
    name: String,
    number: usize,
    program: Program,
    wires: Wires,
    doors: Doors,
    running: Option<Running>,
}

impl Gateway {
    pub(super) fn new(number: usize, program: Program, wires: &Wires, doors: &Doors) -> Gateway {
        Gateway {
            name: format!("gateway-{number}"),
            number,
            program,
            wires: wires.clone(),
            doors: doors.clone(),
            running: None,
        }
    }

    /// Its name on the wires.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When it does not run.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.doors.address(self.number);
        address.with_context(|| format!("{} does not run", self.name))
    }

    /// Its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&self) -> Result<&Running> {
        let running = self.running.as_ref();
        running.with_context(|| format!("{} does not run", self.name))
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it; returns once it listens.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} runs already", self.name);
        let mut running = self.program.start()?;
        self.wires.is_process(&self.name, running.id());
        let address = running.address_after("listening on ")?;
        self.running = Some(running);
        self.doors.set(self.number, Some(address));
        Ok(())
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_9(&mut self) -> Result<()> {
        self.doors.set(self.number, None);
        self.running.take().context("it does not run")?.kill_9()
    }
}
