//! Frames of HTTP/2: writing them, and cutting what arrives into them.
//!
//! Data is handed on in pieces as it lies in the read buffer, never gathered; every other frame is short and gathered
//! whole. Invariant: a reader is fed the bytes of one connection in order.

use anyhow::{Result, ensure};

/// Length of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
/// The longest frame we accept: the default, as common clients have it.
const FRAME_LIMIT: usize = 16 << 10;

/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GO_AWAY: u8 = 7;
pub(super) const WINDOW: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of data and headers: the stream ends here.
pub(super) const END_STREAM: u8 = 1;
/// Of settings and pings: an acknowledgement.
pub(super) const ACK: u8 = 1;
/// Of headers: the block ends here.
pub(super) const END_HEADERS: u8 = 4;
/// Of data and headers: padding, or a priority. Servers send neither.
const PADDED_OR_PRIORITY: u8 = 0x28;

pub(super) const SETTING_PUSH: u16 = 2;
pub(super) const SETTING_WINDOW: u16 = 4;
pub(super) const SETTING_FRAME: u16 = 5;

/// Head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of what follows.
    pub(super) length: usize,
    /// Kind of frame.
    pub(super) kind: u8,
    /// Flags.
    pub(super) flags: u8,
    /// Stream, 0 for the connection.
    pub(super) stream: u32,
}

impl Head {
    /// Appends it.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    fn parse(bytes: [u8; HEAD_BYTES]) -> Result<Head> {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let head = Head {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7FFF_FFFF,
        };
        ensure!(head.length <= FRAME_LIMIT, "a frame is too long");
        let plain = !matches!(kind, DATA | HEADERS) || flags & PADDED_OR_PRIORITY == 0;
        ensure!(plain, "padding and priorities are not understood");
        Ok(head)
    }
}

/// Appends a whole frame.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    Head {
        length,
        kind,
        flags,
        stream,
    }
    .put(out);
    out.extend_from_slice(payload);
}

/// A piece of what arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Data of a frame, which ends with this piece or not.
    Data(Head, &'a [u8], bool),
    /// A whole frame of another kind.
    Frame(Head, &'a [u8]),
}

/// Cuts bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame that is not yet complete; of data only its head.
    held: Vec<u8>,
    /// A data frame under way, and what is left of it.
    data: Option<(Head, usize)>,
}

impl Reader {
    /// Hands on what is complete in `bytes` and keeps the rest.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            if let Some((head, left)) = self.data.take() {
                let (now, rest) = bytes.split_at(left.min(bytes.len()));
                if now.len() < left {
                    self.data = Some((head, left - now.len()));
                }
                take(Piece::Data(head, now, now.len() == left))?;
                bytes = rest;
                continue;
            }
            let Some(head) = self.head(&mut bytes)? else {
                return Ok(());
            };
            if head.kind == DATA {
                self.held.clear();
                self.data = Some((head, head.length));
                if head.length == 0 {
                    self.data = None;
                    take(Piece::Data(head, &[], true))?;
                }
                continue;
            }
            let gathered = self.held.len() - HEAD_BYTES;
            let (now, rest) = bytes.split_at((head.length - gathered).min(bytes.len()));
            self.held.extend_from_slice(now);
            bytes = rest;
            if self.held.len() == HEAD_BYTES + head.length {
                take(Piece::Frame(head, &self.held[HEAD_BYTES..]))?;
                self.held.clear();
            }
        }
        Ok(())
    }

    /// The head of the frame under way, once its nine bytes are there.
    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>> {
        let missing = HEAD_BYTES.saturating_sub(self.held.len());
        let (now, rest) = bytes.split_at(missing.min(bytes.len()));
        self.held.extend_from_slice(now);
        *bytes = rest;
        match self.held.first_chunk() {
            Some(head) => Head::parse(*head).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Vec<u8> {
        let mut wire = Vec::new();
        put(&mut wire, SETTINGS, 0, 0, &[]);
        put(&mut wire, HEADERS, END_HEADERS, 1, b"block");
        put(&mut wire, DATA, 0, 1, b"hello");
        put(&mut wire, DATA, END_STREAM, 1, b"");
        put(&mut wire, PING, ACK, 0, b"12345678");
        wire
    }

    /// What a reader hands on, with data gathered again.
    fn read(cuts: &[&[u8]]) -> Vec<(u8, u8, Vec<u8>)> {
        let mut reader = Reader::default();
        let mut frames = Vec::new();
        let mut data = Vec::new();
        for bytes in cuts {
            let fed = reader.feed(bytes, |piece| {
                match piece {
                    Piece::Frame(head, payload) => {
                        frames.push((head.kind, head.flags, payload.to_vec()));
                    }
                    Piece::Data(head, piece, last) => {
                        data.extend_from_slice(piece);
                        if last {
                            frames.push((head.kind, head.flags, std::mem::take(&mut data)));
                        }
                    }
                }
                Ok(())
            });
            fed.unwrap();
        }
        frames
    }

    #[test]
    fn frames_cut_anywhere_are_read_once() {
        let wire = wire();
        let whole = read(&[&wire]);
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[1], (HEADERS, END_HEADERS, b"block".to_vec()));
        assert_eq!(whole[2], (DATA, 0, b"hello".to_vec()));
        for cut in 0..=wire.len() {
            assert_eq!(read(&[&wire[..cut], &wire[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let mut long = Vec::new();
        put(&mut long, DATA, 0, 1, &vec![0; FRAME_LIMIT + 1]);
        let mut padded = Vec::new();
        put(&mut padded, DATA, 8, 1, b"\x01ab");
        for wire in [long, padded] {
            assert!(Reader::default().feed(&wire, |_| Ok(())).is_err());
        }
    }
}
