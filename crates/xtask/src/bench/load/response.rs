//! Reading answers: status, Content-Length, then so many bytes. The least that is needed, made for speed.
//!
//! Invariant: a parser is fed the bytes of one connection in order and reports each answer exactly once.

/// The longest head that is accepted, in bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// A complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code.
    pub(super) status: u16,
    /// Length of the body in bytes.
    pub(super) body_bytes: u64,
    /// The server will close the connection.
    pub(super) close: bool,
}

/// How far feeding came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    /// Body bytes among what was fed.
    pub(super) body_bytes: u64,
    /// The answer, once it is complete.
    pub(super) answer: Option<Answer>,
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResponseError {
    /// It is not HTTP/1.x.
    #[error("the answer does not begin with HTTP/1")]
    NotHttp,
    /// The head is too long.
    #[error("the head of the answer is longer than {HEAD_LIMIT} bytes")]
    HeadTooLong,
    /// It does not say how long it is.
    #[error("the answer (status {0}) has no valid Content-Length")]
    NoLength(u16),
    /// More bytes than it said.
    #[error("bytes follow the answer that nobody asked for")]
    Surplus,
}

/// The reader of one connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    held: Vec<u8>,
    body: Option<(Answer, u64)>,
}

impl Parser {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<Fed, ResponseError> {
        if self.body.is_some() {
            return self.feed_body(data);
        }
        if self.held.is_empty() {
            return match parse_head(data)? {
                Some((answer, head_bytes)) => self.begin(answer, &data[head_bytes..]),
                None => self.hold(data),
            };
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        match parse_head(&held)? {
            Some((answer, head_bytes)) => self.begin(answer, &held[head_bytes..]),
            None => self.hold(&held),
        }
    }

    /// Whether an answer has begun.
    pub(super) fn in_answer(&self) -> bool {
        self.body.is_some() || !self.held.is_empty()
    }

    fn hold(&mut self, data: &[u8]) -> Result<Fed, ResponseError> {
        if data.len() > HEAD_LIMIT {
            return Err(ResponseError::HeadTooLong);
        }
        self.held.extend_from_slice(data);
        Ok(Fed {
            body_bytes: 0,
            answer: None,
        })
    }

    fn begin(&mut self, answer: Answer, rest: &[u8]) -> Result<Fed, ResponseError> {
        self.body = Some((answer, answer.body_bytes));
        self.feed_body(rest)
    }

    fn feed_body(&mut self, data: &[u8]) -> Result<Fed, ResponseError> {
        let length = data.len() as u64;
        let Some((answer, remaining)) = &mut self.body else {
            return Err(ResponseError::Surplus);
        };
        if length > *remaining {
            return Err(ResponseError::Surplus);
        }
        *remaining -= length;
        let complete = (*remaining == 0).then_some(*answer);
        if complete.is_some() {
            self.body = None;
        }
        Ok(Fed {
            body_bytes: length,
            answer: complete,
        })
    }
}

/// The head at the front of `data` and its length; `None` while it is incomplete.
fn parse_head(data: &[u8]) -> Result<Option<(Answer, usize)>, ResponseError> {
    let Some(end) = data.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &data[..end];
    if !head.starts_with(b"HTTP/1.") {
        return Err(ResponseError::NotHttp);
    }
    let status = head
        .get(9..12)
        .and_then(decimal)
        .ok_or(ResponseError::NotHttp)? as u16;
    let mut length = None;
    let mut close = false;
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        if let Some(value) = header(line, b"content-length:") {
            length = decimal(value);
        } else if let Some(value) = header(line, b"connection:") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    let body_bytes = length.ok_or(ResponseError::NoLength(status))?;
    let answer = Answer {
        status,
        body_bytes,
        close,
    };
    Ok(Some((answer, end + 4)))
}

/// The value of a header line if it has this name (lower case, with the colon).
fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length:  5\r\n\r\nhello";

    fn hello() -> Answer {
        Answer {
            status: 200,
            body_bytes: 5,
            close: false,
        }
    }

    #[test]
    fn an_answer_in_one_piece_is_read() {
        let mut parser = Parser::default();
        let fed = parser.feed(ANSWER).unwrap();
        assert_eq!((fed.body_bytes, fed.answer), (5, Some(hello())));
        assert!(!parser.in_answer());
    }

    #[test]
    fn an_answer_cut_anywhere_is_read_once() {
        for cut in 1..ANSWER.len() {
            let mut parser = Parser::default();
            let first = parser.feed(&ANSWER[..cut]).unwrap();
            assert_eq!(first.answer, None, "cut at {cut}");
            assert!(parser.in_answer());
            let second = parser.feed(&ANSWER[cut..]).unwrap();
            assert_eq!(second.answer, Some(hello()), "cut at {cut}");
            assert_eq!(first.body_bytes + second.body_bytes, 5);
        }
    }

    #[test]
    fn close_without_body_is_seen() {
        let head = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let answer = Parser::default().feed(head).unwrap().answer.unwrap();
        assert!(answer.close);
        assert_eq!((answer.status, answer.body_bytes), (404, 0));
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        let feed = |text: &[u8]| Parser::default().feed(text).unwrap_err();
        assert_eq!(feed(b"SSH-2.0-x\r\n\r\n"), ResponseError::NotHttp);
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(feed(chunked), ResponseError::NoLength(200));
        let surplus = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab";
        assert_eq!(feed(surplus), ResponseError::Surplus);
        assert_eq!(
            feed(&vec![b'x'; HEAD_LIMIT + 1]),
            ResponseError::HeadTooLong
        );
    }
}
