//! One gRPC connection of the generator: HTTP/2 with one call in flight, requests encoded beforehand.
//!
//! Not a general client: no concurrent streams, no compression, no TLS. Settings are those of common clients: frames of
//! at most 16 KiB, windows large enough that a reader never waits for them. What the server says about its own windows
//! and frames is obeyed.

mod calls;
mod frames;
mod headers;
mod protobuf;
mod reply;
#[cfg(test)]
mod tests;

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, bail, ensure};
use mio::{Registry, Token, net::TcpStream};

use super::{Channel, Received, connection::connect};
pub(in super::super) use calls::CallList;
use calls::Place;
use frames::{Head, Piece};
use headers::{Decoder, Encoder};
use reply::Reply;

/// Room a server has for one answer.
const STREAM_WINDOW: u32 = 4 << 20;
/// Room a server has for all answers of a connection; given back long before it is used up.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Both windows before anybody says otherwise.
const DEFAULT_WINDOW: i64 = 65_535;
/// Bytes framed ahead of the socket.
const OUT_BYTES: usize = 256 << 10;

/// The call a connection is busy with.
#[derive(Debug)]
struct Flight {
    index: usize,
    stream: u32,
    place: Place,
    unsent: usize,
    /// Bytes the server takes on this stream.
    window: i64,
    /// Bytes of the answer the server was not yet given back.
    taken: u32,
    reply: Reply,
}

/// A connection.
#[derive(Debug)]
pub(in super::super) struct Connection {
    stream: TcpStream,
    reader: frames::Reader,
    state: State,
}

/// Everything but the socket.
#[derive(Debug)]
struct State {
    encoder: Encoder,
    decoder: Decoder,
    out: Vec<u8>,
    written: usize,
    /// A header block that goes on in another frame, and whether its stream ends.
    block: Option<(Vec<u8>, bool)>,
    calls: u64,
    /// Bytes the server takes on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    frame_bytes: usize,
    taken: u32,
    closing: bool,
    flight: Option<Flight>,
    spare: Vec<u8>,
    finished: Option<Flight>,
}

impl Channel<CallList<'_>> for Connection {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self> {
        Ok(Connection {
            stream: connect(address, registry, token)?,
            reader: frames::Reader::default(),
            state: State::new(address),
        })
    }

    fn send(&mut self, work: &CallList<'_>, index: usize) -> Result<()> {
        self.state.begin(work, index);
        self.send_on(work)
    }

    fn send_on(&mut self, work: &CallList<'_>) -> Result<()> {
        loop {
            self.state.frame(work);
            if self.state.out.is_empty() {
                return Ok(());
            }
            match self.stream.write(&self.state.out[self.state.written..]) {
                Ok(0) => bail!("the connection takes no more bytes"),
                Ok(count) => self.state.wrote(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending failed"),
            }
        }
    }

    fn receive(&mut self, work: &CallList<'_>, buffer: &mut [u8]) -> Result<Received> {
        let mut received = Received::default();
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.state.flight.is_some() && self.state.calls > 1 => {
                    bail!("the connection was closed during a call");
                }
                Ok(0) => {
                    received.closed = true;
                    return Ok(received);
                }
                Ok(count) => {
                    let state = &mut self.state;
                    received.body_bytes += count as u64;
                    self.reader
                        .feed(&buffer[..count], |piece| state.take(piece))?;
                    // A short read has emptied the socket: what comes later is a new event.
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading failed"),
            }
        }
        let Some(flight) = self.state.finished.take() else {
            if !self.state.counts(work) {
                received.body_bytes = 0;
            }
            // What the server was waiting for, or now has room for.
            self.send_on(work)?;
            return Ok(received);
        };
        let expect = work.expect(flight.index);
        if !expect.is_download() {
            received.body_bytes = 0;
        }
        received.answer = Some(flight.reply.check(expect));
        received.closing = self.state.closing;
        self.state.spare = flight.reply.into_held();
        Ok(received)
    }
}

impl State {
    fn new(address: SocketAddr) -> State {
        let mut out = frames::PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in [
            (frames::SETTING_PUSH, 0),
            (frames::SETTING_WINDOW, STREAM_WINDOW),
        ] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frames::put(&mut out, frames::SETTINGS, 0, 0, &settings);
        put_window(&mut out, 0, CONNECTION_WINDOW);
        State {
            encoder: Encoder::new(address.to_string()),
            decoder: Decoder::default(),
            out,
            written: 0,
            block: None,
            calls: 0,
            window: DEFAULT_WINDOW,
            stream_window: DEFAULT_WINDOW,
            frame_bytes: 16 << 10,
            taken: 0,
            closing: false,
            flight: None,
            spare: Vec::new(),
            finished: None,
        }
    }

    fn begin(&mut self, work: &CallList<'_>, index: usize) {
        let stream = (self.calls * 2 + 1) as u32;
        let mut block = Vec::with_capacity(256);
        self.encoder.encode(work.path(index), &mut block);
        let flags = frames::END_HEADERS;
        frames::put(&mut self.out, frames::HEADERS, flags, stream, &block);
        let held = std::mem::take(&mut self.spare);
        self.flight = Some(Flight {
            index,
            stream,
            place: Place::default(),
            unsent: work.request_bytes(index),
            window: self.stream_window,
            taken: 0,
            reply: Reply::new(self.calls, work.expect(index), held),
        });
        self.calls += 1;
    }

    /// Frames more of the call under way, as far as the windows and the buffer allow.
    fn frame(&mut self, work: &CallList<'_>) {
        let Some(flight) = &mut self.flight else {
            return;
        };
        while flight.unsent > 0 && self.out.len() < OUT_BYTES {
            let room = usize::try_from(self.window.min(flight.window)).unwrap_or(0);
            let length = flight.unsent.min(self.frame_bytes).min(room);
            if length == 0 {
                return;
            }
            flight.unsent -= length;
            flight.window -= i64::from(length as u32);
            self.window -= i64::from(length as u32);
            let last = flight.unsent == 0;
            Head {
                length,
                kind: frames::DATA,
                flags: if last { frames::END_STREAM } else { 0 },
                stream: flight.stream,
            }
            .put(&mut self.out);
            work.copy(flight.index, &mut flight.place, length, &mut self.out);
        }
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
    }

    /// Whether the bytes arriving now are what the call is about.
    fn counts(&self, work: &CallList<'_>) -> bool {
        let flight = self.flight.as_ref();
        flight.is_some_and(|flight| work.expect(flight.index).is_download())
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Data(head, bytes, last) => {
                self.data(head, bytes, last);
                Ok(())
            }
            Piece::Frame(head, payload) => self.other(head, payload),
        }
    }

    fn data(&mut self, head: Head, bytes: &[u8], last: bool) {
        self.taken += bytes.len() as u32;
        if self.taken > CONNECTION_WINDOW / 2 {
            put_window(&mut self.out, 0, self.taken);
            self.taken = 0;
        }
        let Some(flight) = &mut self.flight else {
            return;
        };
        if head.stream != flight.stream {
            return;
        }
        flight.reply.feed(bytes);
        flight.taken += bytes.len() as u32;
        if flight.taken > STREAM_WINDOW / 2 {
            put_window(&mut self.out, flight.stream, flight.taken);
            flight.taken = 0;
        }
        if last && head.flags & frames::END_STREAM != 0 {
            self.finish();
        }
    }

    fn other(&mut self, head: Head, payload: &[u8]) -> Result<()> {
        match head.kind {
            frames::HEADERS | frames::CONTINUATION => self.headers(head, payload),
            frames::SETTINGS if head.flags & frames::ACK == 0 => self.settings(payload),
            frames::PING if head.flags & frames::ACK == 0 => {
                frames::put(&mut self.out, frames::PING, frames::ACK, 0, payload);
                Ok(())
            }
            frames::WINDOW => {
                let more = i64::from(number(payload)? & 0x7FFF_FFFF);
                match &mut self.flight {
                    _ if head.stream == 0 => self.window += more,
                    Some(flight) if flight.stream == head.stream => flight.window += more,
                    _ => {}
                }
                Ok(())
            }
            frames::RESET => {
                let current = self.flight.as_ref().map(|flight| flight.stream);
                ensure!(
                    current != Some(head.stream),
                    "the call was reset with code {}",
                    number(payload)?
                );
                Ok(())
            }
            frames::GO_AWAY => {
                self.closing = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<()> {
        let (mut block, mut ends) = self.block.take().unwrap_or_default();
        block.extend_from_slice(payload);
        ends |= head.kind == frames::HEADERS && head.flags & frames::END_STREAM != 0;
        if head.flags & frames::END_HEADERS == 0 {
            self.block = Some((block, ends));
            return Ok(());
        }
        let current = self.flight.as_mut();
        let Some(flight) = current.filter(|flight| flight.stream == head.stream) else {
            // The table must stay in step also for a call that was given up.
            return self
                .decoder
                .decode(&block, &mut headers::Statuses::default());
        };
        self.decoder.decode(&block, &mut flight.reply.statuses)?;
        if ends {
            self.finish();
        }
        Ok(())
    }

    /// The answer is complete, also if the server did not want the whole request.
    fn finish(&mut self) {
        self.finished = self.flight.take();
        if let Some(flight) = &self.finished
            && flight.unsent > 0
        {
            const CANCEL: [u8; 4] = [0, 0, 0, 8];
            frames::put(&mut self.out, frames::RESET, 0, flight.stream, &CANCEL);
        }
    }

    fn settings(&mut self, payload: &[u8]) -> Result<()> {
        for setting in payload.chunks_exact(6) {
            let value = number(&setting[2..])?;
            match u16::from_be_bytes([setting[0], setting[1]]) {
                frames::SETTING_WINDOW => {
                    let more = i64::from(value) - self.stream_window;
                    self.stream_window += more;
                    if let Some(flight) = &mut self.flight {
                        flight.window += more;
                    }
                }
                // Common clients frame 16 KiB also where a server would take more.
                frames::SETTING_FRAME => self.frame_bytes = self.frame_bytes.min(value as usize),
                _ => {}
            }
        }
        frames::put(&mut self.out, frames::SETTINGS, frames::ACK, 0, &[]);
        Ok(())
    }
}

fn put_window(out: &mut Vec<u8>, stream: u32, more: u32) {
    frames::put(out, frames::WINDOW, 0, stream, &more.to_be_bytes());
}

fn number(payload: &[u8]) -> Result<u32> {
    let bytes = payload.first_chunk().context("a frame is too short")?;
    Ok(u32::from_be_bytes(*bytes))
}
