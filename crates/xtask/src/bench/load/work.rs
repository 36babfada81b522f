//! The list of requests, built before the clock runs.
//!
//! Invariant: nothing is hashed, formatted or allocated per request while the generator measures.

use std::{io::IoSlice, net::SocketAddr, ops::Range};

use super::{
    super::corpus::{Blob, Payload, Tail},
    Work,
    connection::Connection,
};

/// What is asked of each blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    /// Upload it.
    Put,
    /// Read it.
    Get,
    /// Read it; it must be absent.
    Miss,
    /// Read the action result of its key; it must be absent.
    MissResult,
}

/// One request.
#[derive(Debug)]
struct Job {
    head: Range<usize>,
    length: u64,
    tail: Option<Tail>,
}

/// Requests in order.
#[derive(Debug)]
pub(in super::super) struct WorkList<'a> {
    payload: &'a Payload,
    method: Method,
    heads: Vec<u8>,
    jobs: Vec<Job>,
    repeat: bool,
}

impl<'a> WorkList<'a> {
    /// One request per blob. With `repeat` the list starts again at its end.
    pub(in super::super) fn new(
        address: SocketAddr,
        method: Method,
        payload: &'a Payload,
        blobs: &[Blob],
        repeat: bool,
    ) -> WorkList<'a> {
        let mut list = WorkList {
            payload,
            method,
            heads: Vec::with_capacity(blobs.len() * 160),
            jobs: Vec::with_capacity(blobs.len()),
            repeat,
        };
        let ending = format!(" HTTP/1.1\r\nHost: {address}\r\n");
        for blob in blobs {
            list.push(blob, &ending);
        }
        list
    }

    fn push(&mut self, blob: &Blob, ending: &str) {
        let start = self.heads.len();
        let verb = match self.method {
            Method::Put => "PUT",
            Method::Get | Method::Miss | Method::MissResult => "GET",
        };
        let place = match self.method {
            Method::MissResult => "ac",
            _ => "cas",
        };
        let mut head = format!("{verb} /{place}/{}{ending}", blob.hash);
        let put = self.method == Method::Put;
        if put {
            head.push_str("Content-Length: ");
            head.push_str(&blob.length.to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.heads.extend_from_slice(head.as_bytes());
        self.jobs.push(Job {
            head: start..self.heads.len(),
            length: blob.length,
            tail: put.then(|| blob.tail()),
        });
    }

    /// The pieces of a request: head, shared body, own body. The last two are empty for reads.
    pub(super) fn pieces(&self, index: usize) -> [&[u8]; 3] {
        let job = &self.jobs[index];
        let head = &self.heads[job.head.clone()];
        match &job.tail {
            Some(tail) => [head, self.payload.shared(job.length), tail.as_bytes()],
            None => [head, &[], &[]],
        }
    }

    /// The request, where it is only a head and nothing of it was sent: the common case of reads.
    pub(super) fn whole_head(&self, index: usize, sent: usize) -> Option<&[u8]> {
        (sent == 0 && self.method != Method::Put)
            .then(|| &self.heads[self.jobs[index].head.clone()])
    }

    /// What is left to send after `sent` bytes.
    pub(super) fn rest(&self, index: usize, mut sent: usize) -> [IoSlice<'_>; 3] {
        self.pieces(index).map(|piece| {
            let skipped = sent.min(piece.len());
            sent -= skipped;
            IoSlice::new(&piece[skipped..])
        })
    }

    /// Length of a request in bytes.
    pub(super) fn request_bytes(&self, index: usize) -> usize {
        self.pieces(index).iter().map(|piece| piece.len()).sum()
    }

    /// Checks an answer.
    ///
    /// # Errors
    /// A sentence when it is not what this request must get.
    pub(super) fn check(&self, index: usize, status: u16, body_bytes: u64) -> Result<(), String> {
        let right = match self.method {
            Method::Put => (200..300).contains(&status),
            Method::Get => status == 200 && body_bytes == self.jobs[index].length,
            Method::Miss | Method::MissResult => status == 404,
        };
        if right {
            return Ok(());
        }
        Err(format!(
            "{:?} of {} bytes was answered with status {status} and {body_bytes} bytes",
            self.method, self.jobs[index].length
        ))
    }
}

impl Work for WorkList<'_> {
    type Channel = Connection;

    fn index(&self, number: usize) -> Option<usize> {
        if number < self.jobs.len() {
            Some(number)
        } else if self.repeat && !self.jobs.is_empty() {
            Some(number % self.jobs.len())
        } else {
            None
        }
    }

    fn upload_bytes(&self, index: usize) -> u64 {
        match self.method {
            Method::Put => self.jobs[index].length,
            Method::Get | Method::Miss | Method::MissResult => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_be_taken_up_again_at_any_byte() {
        let payload = Payload::new(100);
        let blobs = payload.uniform(1, 100, 1);
        let address = "127.0.0.1:80".parse().unwrap();
        let list = WorkList::new(address, Method::Put, &payload, &blobs, false);
        let whole = list.pieces(0).concat();
        assert!(whole.starts_with(b"PUT /cas/"));
        assert!(whole.ends_with(&payload.body(&blobs[0])));
        assert_eq!(whole.len(), list.request_bytes(0));
        for sent in 0..=whole.len() {
            let rest: Vec<u8> = list.rest(0, sent).iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(rest, whole[sent..], "after {sent} bytes");
        }
        assert_eq!((list.index(0), list.index(1)), (Some(0), None));
    }

    #[test]
    fn answers_are_held_to_what_was_asked() {
        let payload = Payload::new(100);
        let blobs = payload.uniform(1, 100, 1);
        let address = "127.0.0.1:80".parse().unwrap();
        let list = |method| WorkList::new(address, method, &payload, &blobs, true);
        assert!(list(Method::Get).check(0, 200, 100).is_ok());
        assert!(list(Method::Get).check(0, 200, 99).is_err());
        assert!(list(Method::Miss).check(0, 200, 100).is_err());
        assert!(list(Method::Put).check(0, 507, 0).is_err());
        assert_eq!(list(Method::Get).index(5), Some(0));
    }
}
