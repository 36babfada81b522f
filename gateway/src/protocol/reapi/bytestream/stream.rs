//! The messages of a write, as the data that is in them.
//!
//! Data passes through in the pieces in which it arrives, while its message is still coming. That needs what stands in
//! front of it: a message whose fields are in another order is legal and rare, so its data is held until all of it is
//! there. Invariants: the first message names what is written, and none names anything else; every offset is the first
//! one and what was sent since; nothing follows the message that says it is the last.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::grpc::{Messages, Outcome, Progress, Rope, Status, Value};

/// Numbers of the fields of `WriteRequest`.
const NAME: u32 = 1;
const OFFSET: u32 = 2;
const FINISH: u32 = 3;
const DATA: u32 = 10;
/// Longest name that is read.
const MOST_NAME_BYTES: usize = 16 << 10;
/// How long a client may take to close its stream, if it waits for our answer first.
const END_GRACE: Duration = Duration::from_millis(250);

/// What a message says beside its data.
#[derive(Debug, Default)]
struct Said {
    name: Option<String>,
    offset: Option<i64>,
    finish: bool,
}

impl Said {
    /// Reads on to the message's data, whose length it gives, or to the message's end.
    async fn read(&mut self, messages: &mut Messages<'_>) -> Outcome<Option<usize>> {
        while let Some((number, value)) = messages.field().await? {
            match (number, value) {
                (NAME, Value::Bytes(length)) => self.name = read_name(messages, length).await?,
                (OFFSET, Value::Number(offset)) => self.offset = Some(offset.cast_signed()),
                (FINISH, Value::Number(finish)) => self.finish = finish != 0,
                (DATA, Value::Bytes(length)) => return Ok(Some(length)),
                (NAME | DATA, _) | (OFFSET | FINISH, Value::Bytes(_)) => {
                    return Err(Status::invalid("a field has the wrong type"));
                }
                (_, Value::Bytes(length)) => messages.skip(length).await?,
                (_, Value::Number(_)) => {}
            }
        }
        Ok(None)
    }
}

async fn read_name(messages: &mut Messages<'_>, length: usize) -> Outcome<Option<String>> {
    if length > MOST_NAME_BYTES {
        return Err(Status::invalid("the resource name is too long"));
    }
    let bytes = messages.take(length).await?;
    let name = str::from_utf8(&bytes).map_err(|_| Status::invalid("a resource name is no text"))?;
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// Where in a message the next data is.
#[derive(Debug)]
enum At {
    /// So many bytes of it are still to come, and fields may follow.
    Data(usize),
    /// It was held back, because of the order of the fields; the message has nothing else.
    Held(Rope),
}

/// The start of a write: what its first message says in front of its data.
#[derive(Debug)]
pub(super) struct Start {
    /// Of what is written.
    pub(super) name: String,
    /// Of the first byte of data.
    pub(super) offset: i64,
    finish: bool,
    at: At,
    progress: Progress,
}

impl Start {
    /// Reads the first message, up to its data.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there is none, or it names nothing.
    pub(super) async fn read(mut messages: Messages<'_>) -> Outcome<Start> {
        if messages.begin().await?.is_none() {
            return Err(Status::invalid("the call has no message"));
        }
        let mut said = Said::default();
        let mut at = At::Data(0);
        if let Some(length) = said.read(&mut messages).await? {
            at = if said.name.is_some() {
                At::Data(length)
            } else {
                hold(&mut messages, &mut said, length).await?
            };
        }
        let name = said.name;
        Ok(Start {
            name: name.ok_or_else(|| Status::invalid("the first message has no resource name"))?,
            offset: said.offset.unwrap_or(0),
            finish: said.finish,
            at,
            progress: messages.pause(),
        })
    }
}

/// Takes the data of a message, and what is behind it.
async fn hold(messages: &mut Messages<'_>, said: &mut Said, length: usize) -> Outcome<At> {
    let data = messages.take_whole(length).await?;
    match said.read(messages).await? {
        None => Ok(At::Held(data)),
        Some(_) => Err(twice()),
    }
}

fn twice() -> Status {
    Status::invalid("a message has data twice")
}

/// How the data of a write came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client said so.
    Finished,
    /// The client said nothing more.
    Unfinished,
}

/// The data of a write.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    messages: Messages<'a>,
    name: String,
    /// Of the message that is being read.
    offset: i64,
    finish: bool,
    at: At,
    /// Bytes of data so far, from the first offset on.
    next_offset: i64,
    received: u64,
}

impl<'a> Stream<'a> {
    /// The data from the first message on.
    pub(super) fn new(start: Start, resume: impl FnOnce(Progress) -> Messages<'a>) -> Stream<'a> {
        Stream {
            messages: resume(start.progress),
            name: start.name,
            offset: start.offset,
            finish: start.finish,
            at: start.at,
            next_offset: start.offset,
            received: 0,
        }
    }

    /// Bytes of data that came so far.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// The next piece of data, or how it ended.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when a message says something else than those before it.
    pub(super) async fn next(&mut self) -> Outcome<Result<Bytes, End>> {
        loop {
            let piece = self.piece().await?;
            if !piece.is_empty() {
                self.received += piece.len() as u64;
                self.next_offset = self.next_offset.saturating_add_unsigned(piece.len() as u64);
                return Ok(Ok(piece));
            }
            self.read_behind().await?;
            if self.finish {
                return Ok(Err(End::Finished));
            }
            if self.messages.begin().await?.is_none() {
                return Ok(Err(End::Unfinished));
            }
            self.begin().await?;
        }
    }

    /// Makes sure that nothing follows.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when something does.
    pub(super) async fn end(&mut self) -> Outcome<()> {
        match timeout(END_GRACE, self.messages.begin()).await {
            Ok(Ok(Some(_))) => Err(Status::invalid("a message follows the last one")),
            // The write is done, however its connection goes on.
            Ok(Ok(None) | Err(_)) | Err(_) => Ok(()),
        }
    }

    async fn piece(&mut self) -> Outcome<Bytes> {
        match &mut self.at {
            At::Held(rope) => Ok(rope.take_piece(usize::MAX)),
            At::Data(0) => Ok(Bytes::new()),
            At::Data(left) => {
                let piece = self.messages.piece(*left).await?;
                *left -= piece.len();
                Ok(piece)
            }
        }
    }

    /// Reads the next message up to its data.
    async fn begin(&mut self) -> Outcome<()> {
        let mut said = Said::default();
        self.at = At::Data(0);
        if let Some(length) = said.read(&mut self.messages).await? {
            self.at = if said.offset.unwrap_or(0) == self.next_offset {
                At::Data(length)
            } else {
                hold(&mut self.messages, &mut said, length).await?
            };
        }
        self.offset = said.offset.unwrap_or(0);
        if self.offset != self.next_offset {
            return Err(Status::invalid(format!(
                "a message has offset {}, and what was sent before ends at {}",
                self.offset, self.next_offset
            )));
        }
        self.check_name(&said)?;
        self.finish = said.finish;
        Ok(())
    }

    /// Reads what is behind a message's data: usually nothing, never anything that contradicts what is in front.
    async fn read_behind(&mut self) -> Outcome<()> {
        let mut said = Said::default();
        if said.read(&mut self.messages).await?.is_some() {
            return Err(twice());
        }
        self.check_name(&said)?;
        if said.offset.is_some_and(|offset| offset != self.offset) {
            return Err(Status::invalid("a message has two offsets"));
        }
        self.finish |= said.finish;
        Ok(())
    }

    fn check_name(&self, said: &Said) -> Outcome<()> {
        match &said.name {
            Some(name) if *name != self.name => Err(Status::invalid(
                "a message has another resource name than the first one",
            )),
            _ => Ok(()),
        }
    }
}
