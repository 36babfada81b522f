//! One HTTP/1.1 connection of the generator: sends one request, reads its answer, says when it is complete.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, bail};
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{Channel, Received, response::Parser, work::WorkList};

/// The request a connection is busy with.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Its place in the work list.
    index: usize,
    sent: usize,
    whole: usize,
}

/// A connection.
#[derive(Debug)]
pub(in super::super) struct Connection {
    stream: TcpStream,
    parser: Parser,
    /// The request under way.
    flight: Option<Flight>,
}

/// Connects without delay of small packets and registers for reading and writing.
pub(super) fn connect(address: SocketAddr, registry: &Registry, token: Token) -> Result<TcpStream> {
    let stream = std::net::TcpStream::connect(address)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

impl Channel<WorkList<'_>> for Connection {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self> {
        Ok(Connection {
            stream: connect(address, registry, token)?,
            parser: Parser::default(),
            flight: None,
        })
    }

    fn send(&mut self, work: &WorkList<'_>, index: usize) -> Result<()> {
        self.flight = Some(Flight {
            index,
            sent: 0,
            whole: work.request_bytes(index),
        });
        self.send_on(work)
    }

    fn send_on(&mut self, work: &WorkList<'_>) -> Result<()> {
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

    fn receive(&mut self, work: &WorkList<'_>, buffer: &mut [u8]) -> Result<Received> {
        let mut received = Received::default();
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
                    if let Some(answer) = fed.answer {
                        let Some(flight) = self.flight.take() else {
                            bail!("an answer came without a request");
                        };
                        if flight.sent < flight.whole {
                            bail!("the request was answered before it was sent whole");
                        }
                        received.closing = answer.close;
                        received.answer =
                            Some(work.check(flight.index, answer.status, answer.body_bytes));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading failed"),
            }
        }
        Ok(received)
    }
}
