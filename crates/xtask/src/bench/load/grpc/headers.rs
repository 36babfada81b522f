//! Header blocks of gRPC calls (HPACK): what is sent is a line of table references after the first call, as with common
//! clients; of what comes back only the statuses are looked at.
//!
//! Invariant: blocks are encoded in the order in which they are sent, decoded in the order in which they come.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use httlib_huffman::DecoderSpeed;

/// Entries of the static table.
const STATIC: usize = 61;
/// A table of 4096 bytes holds no more entries, for each counts 32 bytes and its texts.
const ENTRIES: usize = 4096 / 32;
/// The same in every call: place of the name in the static table, name if it has none, value.
const FIXED: [(u8, &str, &str); 3] = [
    (31, "", "application/grpc"),
    (58, "", "bench"),
    (0, "te", "trailers"),
];

/// Writes the header blocks of one connection.
#[derive(Debug)]
pub(super) struct Encoder {
    authority: String,
    /// What the peer's table holds, oldest first.
    sent: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Path(&'static str),
    Authority,
    Fixed(usize),
}

impl Encoder {
    /// For a connection to this authority.
    pub(super) const fn new(authority: String) -> Encoder {
        Encoder {
            authority,
            sent: Vec::new(),
        }
    }

    /// Appends the block of a call to `path`.
    pub(super) fn encode(&mut self, path: &'static str, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x83, 0x86]); // :method POST, :scheme http
        let fixed = (0..FIXED.len()).map(Entry::Fixed);
        for entry in [Entry::Path(path), Entry::Authority]
            .into_iter()
            .chain(fixed)
        {
            self.field(entry, out);
        }
    }

    fn field(&mut self, entry: Entry, out: &mut Vec<u8>) {
        if let Some(place) = self.sent.iter().position(|known| *known == entry) {
            // Few entries: the index stays below the 127 that fit into one byte.
            out.push(0x80 | (STATIC + self.sent.len() - place) as u8);
            return;
        }
        let (index, name, value) = match entry {
            Entry::Path(path) => (4, "", path),
            Entry::Authority => (1, "", self.authority.as_str()),
            Entry::Fixed(place) => FIXED[place],
        };
        out.push(0x40 | index);
        if index == 0 {
            text(name, out);
        }
        text(value, out);
        self.sent.push(entry);
    }
}

/// A text without Huffman coding; all are shorter than 127 bytes.
fn text(value: &str, out: &mut Vec<u8>) {
    out.push(value.len() as u8);
    out.extend_from_slice(value.as_bytes());
}

/// What an answer's headers or trailers say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Statuses {
    /// Of HTTP.
    pub(super) http: Option<u16>,
    /// Of gRPC.
    pub(super) grpc: Option<u16>,
    /// Of gRPC, in words.
    pub(super) message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Http,
    Grpc,
    Message,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Name {
        match name {
            b":status" => Name::Http,
            b"grpc-status" => Name::Grpc,
            b"grpc-message" => Name::Message,
            _ => Name::Other,
        }
    }
}

/// Reads the header blocks of one connection.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Newest first. Nothing is dropped for its size: a peer refers only to what it knows to be there.
    table: VecDeque<(Name, Vec<u8>)>,
}

impl Decoder {
    /// Reads a block and adds what it says to `found`.
    pub(super) fn decode(&mut self, mut block: &[u8], found: &mut Statuses) -> Result<()> {
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    let (name, value) = self.indexed(index)?;
                    note(found, name, value)?;
                }
                0x40.. => {
                    let (name, value) = self.literal(&mut block, 6)?;
                    note(found, name, &value)?;
                    self.table.push_front((name, value));
                    self.table.truncate(ENTRIES);
                }
                0x20.. => {
                    integer(&mut block, 5)?;
                }
                _ => {
                    let (name, value) = self.literal(&mut block, 4)?;
                    note(found, name, &value)?;
                }
            }
        }
        Ok(())
    }

    fn indexed(&self, index: usize) -> Result<(Name, &[u8])> {
        const HTTP: [&[u8]; 7] = [b"200", b"204", b"206", b"304", b"400", b"404", b"500"];
        match index {
            8..=14 => Ok((Name::Http, HTTP[index - 8])),
            1..=STATIC => Ok((Name::Other, &[])),
            _ => self
                .table
                .get(index.wrapping_sub(STATIC + 1))
                .map(|(name, value)| (*name, value.as_slice()))
                .context("a header is not in the table"),
        }
    }

    fn literal(&self, block: &mut &[u8], bits: u8) -> Result<(Name, Vec<u8>)> {
        let name = match integer(block, bits)? {
            0 => Name::of(&string(block)?),
            index => self.indexed(index)?.0,
        };
        Ok((name, string(block)?))
    }
}

fn note(found: &mut Statuses, name: Name, value: &[u8]) -> Result<()> {
    let number = || -> Result<u16> { Ok(std::str::from_utf8(value)?.parse()?) };
    match name {
        Name::Http => found.http = Some(number().context("no HTTP status")?),
        Name::Grpc => found.grpc = Some(number().context("no gRPC status")?),
        Name::Message => found.message = Some(String::from_utf8_lossy(value).into_owned()),
        Name::Other => {}
    }
    Ok(())
}

/// An integer whose first byte leaves so many bits for it.
fn integer(block: &mut &[u8], bits: u8) -> Result<usize> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(byte(block)?) & mask;
    if value < mask {
        return Ok(value);
    }
    for place in 0..4 {
        let next = usize::from(byte(block)?);
        value += (next & 0x7F) << (7 * place);
        if next < 0x80 {
            return Ok(value);
        }
    }
    bail!("an integer in a header block is too long")
}

fn byte(block: &mut &[u8]) -> Result<u8> {
    let (&first, rest) = block.split_first().context("a header block is cut short")?;
    *block = rest;
    Ok(first)
}

fn string(block: &mut &[u8]) -> Result<Vec<u8>> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    ensure!(length <= block.len(), "a header block is cut short");
    let (text, rest) = block.split_at(length);
    *block = rest;
    if !coded {
        return Ok(text.to_vec());
    }
    let mut plain = Vec::with_capacity(length * 2);
    if httlib_huffman::decode(text, &mut plain, DecoderSpeed::FourBits).is_err() {
        bail!("a text in a header block is not Huffman coded");
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_is_sent_as_references() {
        let mut encoder = Encoder::new("127.0.0.1:1".to_owned());
        let mut first = Vec::new();
        encoder.encode("/a/B", &mut first);
        assert!(first.starts_with(b"\x83\x86\x44\x04/a/B\x41\x0b127.0.0.1:1"));
        let mut second = Vec::new();
        encoder.encode("/a/B", &mut second);
        // Newest entry 62: te; then user agent, content type, authority, path.
        assert_eq!(second, [0x83, 0x86, 0xC2, 0xC1, 0xC0, 0xBF, 0xBE]);
        let mut other = Vec::new();
        encoder.encode("/a/C", &mut other);
        assert_eq!(other[..7], *b"\x83\x86\x44\x04/a/");
        assert_eq!(other[8..], [0xC2, 0xC1, 0xC0, 0xBF]);
    }

    #[test]
    fn statuses_are_read_plain_coded_and_from_the_table() {
        let mut decoder = Decoder::default();
        let mut found = Statuses::default();
        let plain = b"\x88\x40\x0bgrpc-status\x0213\x10\x0cgrpc-message\x03why";
        decoder.decode(plain, &mut found).unwrap();
        assert_eq!((found.http, found.grpc), (Some(200), Some(13)));
        assert_eq!(found.message.as_deref(), Some("why"));
        let mut coded = Vec::new();
        httlib_huffman::encode(b"grpc-status", &mut coded).unwrap();
        let mut block = vec![0x40, 0x80 | coded.len() as u8];
        block.extend_from_slice(&coded);
        block.extend_from_slice(b"\x010");
        let mut found = Statuses::default();
        decoder.decode(&block, &mut found).unwrap();
        assert_eq!(found.grpc, Some(0));
        for (index, status) in [(0xBE, 0), (0xBF, 13)] {
            let mut found = Statuses::default();
            decoder.decode(&[index], &mut found).unwrap();
            assert_eq!(found.grpc, Some(status));
        }
    }

    #[test]
    fn a_block_that_is_cut_short_is_an_error() {
        for block in [
            &b"\x40\x05abc"[..],
            b"\xff",
            b"\xff\xff\xff\xff\xff\xff",
            b"\xC0",
        ] {
            let read = Decoder::default().decode(block, &mut Statuses::default());
            assert!(read.is_err(), "{block:?}");
        }
    }
}
