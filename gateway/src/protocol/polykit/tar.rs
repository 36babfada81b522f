//! A tar archive as a stream: what Polykit's artifacts need of GNU tar, and nothing more.
//!
//! Regular files, folders and GNU's long names; links, devices, sparse files and extended headers are refused, since no
//! client writes them and each is a way out of a folder. Not here: what the members mean (`verify`). Invariants: memory
//! is a block and a name; a member's content ends at its size; an archive ends with zeros and nothing after.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Longest name, in bytes.
const MAX_NAME: u64 = 4 << 10;

/// What is wrong with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Flaw(pub(crate) &'static str);

/// The error that reads of a flawed archive give.
pub(super) fn flawed<T>(what: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, Flaw(what)))
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name, as it is written: never absolute, never with `..`.
    pub(crate) name: String,
    /// Whether it is a file, with content.
    pub(crate) is_file: bool,
}

/// An archive being read.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    from: R,
    /// What is still to come of the current member, and of the zeros behind it.
    content: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub(crate) const fn new(from: R) -> Archive<R> {
        Archive {
            from,
            content: 0,
            padding: 0,
        }
    }

    /// The next member, whatever was read of the one before; `None` at the end.
    ///
    /// # Errors
    /// [`Flaw`] inside, or what the stream gives.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut long_name = None;
        loop {
            self.skip()?;
            let mut header = [0; BLOCK];
            self.from.read_exact(&mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                return if long_name.is_some() {
                    flawed("a long name without a member")
                } else {
                    self.end()
                };
            }
            check_sum(&header)?;
            let size = number(field::<12>(&header, 124))?;
            self.content = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            match header[156] {
                b'L' if long_name.is_none() => long_name = Some(self.long_name(size)?),
                kind @ (b'0' | b'\0' | b'5') => {
                    let name = match long_name {
                        Some(name) => name,
                        None => text(&short_name(&header))?,
                    };
                    return member(name, kind, size).map(Some);
                }
                _ => return flawed("a member is neither a file nor a folder"),
            }
        }
    }

    fn long_name(&mut self, size: u64) -> io::Result<String> {
        if size > MAX_NAME {
            return flawed("a name is too long");
        }
        let mut name = Vec::new();
        self.read_to_end(&mut name)?;
        text(name.strip_suffix(b"\0").unwrap_or(&name))
    }

    /// Goes to the next header.
    fn skip(&mut self) -> io::Result<()> {
        let left = self.content + self.padding;
        (self.content, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.from).take(left), &mut io::sink())?;
        if skipped < left {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    /// Reads the rest of the stream, so that its own end is checked too.
    fn end(&mut self) -> io::Result<Option<Member>> {
        let mut rest = [0; BLOCK];
        loop {
            match self.from.read(&mut rest)? {
                0 => return Ok(None),
                n if rest[..n].iter().all(|byte| *byte == 0) => {}
                _ => return flawed("something follows the end of the archive"),
            }
        }
    }
}

/// The content of the current member.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = self.content.min(buf.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.from.read(&mut buf[..wanted])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= n as u64;
        Ok(n)
    }
}

fn member(name: String, kind: u8, size: u64) -> io::Result<Member> {
    let is_file = kind != b'5';
    if !is_file && size > 0 {
        return flawed("a folder has content");
    }
    let name = if is_file {
        name
    } else {
        name.trim_end_matches('/').to_owned()
    };
    let mut parts = name.split('/');
    if parts.any(|part| part.is_empty() || part == "." || part == "..") {
        return flawed("a name leads out of its folder");
    }
    Ok(Member { name, is_file })
}

fn field<const N: usize>(header: &[u8; BLOCK], at: usize) -> &[u8] {
    &header[at..at + N]
}

/// The name, behind the prefix where the format is POSIX's.
fn short_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let until_zero = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0);
        field[..end.unwrap_or(field.len())].to_vec()
    };
    let name = until_zero(field::<100>(header, 0));
    let prefix = until_zero(field::<155>(header, 345));
    let is_posix = field::<6>(header, 257) == b"ustar\0";
    if is_posix && !prefix.is_empty() {
        [prefix, name].join(&b'/')
    } else {
        name
    }
}

fn text(bytes: &[u8]) -> io::Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => flawed("a name is no text"),
    }
}

/// Octal digits between blanks, or GNU's binary form for large numbers.
fn number(field: &[u8]) -> io::Result<u64> {
    const TOO_LARGE: &str = "a number is too large";
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        let Some((high, low)) = rest.split_at_checked(rest.len().saturating_sub(8)) else {
            return flawed(TOO_LARGE);
        };
        let fits = *first == 0x80 && high.iter().all(|byte| *byte == 0);
        let value = low
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        return if fits && i64::try_from(value).is_ok() {
            Ok(value)
        } else {
            flawed(TOO_LARGE)
        };
    }
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ');
    let digits: Vec<u8> = digits
        .take_while(|byte| !matches!(byte, b' ' | 0))
        .collect();
    if digits.is_empty() || !digits.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
        return flawed("a number is none");
    }
    Ok(digits
        .iter()
        .fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

/// The sum of all bytes, with the sum's own field read as blanks.
fn check_sum(header: &[u8; BLOCK]) -> io::Result<()> {
    let told = number(field::<8>(header, 148))?;
    let bytes = header.iter().enumerate();
    let sum = bytes.map(|(at, byte)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    });
    if sum.sum::<u64>() == told {
        Ok(())
    } else {
        flawed("a header's sum is wrong")
    }
}
