//! One connection of the generator: sends one request, reads its answer, says when it is complete.
//!
//! Sockets are edge-triggered: each call goes on until it is done or the kernel says "not now".

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    response::{Answer, Parser},
    work::WorkList,
};

/// The request a connection is busy with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    /// Its place in the work list.
    pub(super) index: usize,
    /// When it was due.
    pub(super) due: Instant,
    sent: usize,
    whole: usize,
}

/// What reading gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Body bytes of the answer read now.
    pub(super) body_bytes: u64,
    /// The answer, once complete.
    pub(super) answer: Option<Answer>,
    /// The server closed the connection before it answered anything.
    pub(super) closed: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    parser: Parser,
    /// The request under way.
    pub(super) flight: Option<Flight>,
}

impl Connection {
    /// Connects and registers.
    pub(super) fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self> {
        let stream = std::net::TcpStream::connect(address)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection {
            stream,
            parser: Parser::default(),
            flight: None,
        })
    }

    /// Begins a request and sends what the socket takes.
    pub(super) fn send(&mut self, work: &WorkList<'_>, index: usize, due: Instant) -> Result<()> {
        self.flight = Some(Flight {
            index,
            due,
            sent: 0,
            whole: work.request_bytes(index),
        });
        self.send_on(work)
    }

    /// Sends more of the request under way.
    pub(super) fn send_on(&mut self, work: &WorkList<'_>) -> Result<()> {
        let Some(flight) = &mut self.flight else {
            return Ok(());
        };
        while flight.sent < flight.whole {
            let sent = match work.whole_head(flight.index, flight.sent) {
                Some(head) => self.stream.write(head),
                None => self
                    .stream
                    .write_vectored(&work.rest(flight.index, flight.sent)),
            };
            match sent {
                Ok(0) => bail!("the connection takes no more bytes"),
                Ok(count) => flight.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending failed"),
            }
        }
        Ok(())
    }

    /// Reads until the answer is complete or the socket is empty.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        let mut received = Received {
            body_bytes: 0,
            answer: None,
            closed: false,
        };
        while received.answer.is_none() {
            match self.stream.read(buffer) {
                Ok(0) if self.parser.in_answer() => bail!("the answer was cut short"),
                Ok(0) => {
                    received.closed = true;
                    break;
                }
                Ok(count) => {
                    let fed = self.parser.feed(&buffer[..count])?;
                    received.body_bytes += fed.body_bytes;
                    received.answer = fed.answer;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading failed"),
            }
        }
        if received.answer.is_some() && self.flight.is_some_and(|flight| flight.sent < flight.whole)
        {
            bail!("the request was answered before it was sent whole");
        }
        Ok(received)
    }
}
