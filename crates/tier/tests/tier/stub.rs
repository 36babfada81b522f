//! A server that gives the answers it was told to, one request each: for what no real server does on demand.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use zimcache_telemetry::task;

/// An answer to one request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status line's end, headers and a body.
    Say(&'static str, &'static str, String),
    /// The connection is closed without a word.
    HangUp,
}

/// A running stub; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    left: Arc<Mutex<VecDeque<Answer>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stub {
    pub(crate) async fn start(answers: Vec<Answer>) -> Stub {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(Mutex::new(VecDeque::from(answers)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log) = (Arc::clone(&left), Arc::clone(&asked));
        let accepting = task::spawn("stub", async move {
            while let Ok((client, _)) = listener.accept().await {
                answer(client, &answers, &log).await;
            }
        });
        Stub {
            address,
            asked,
            left,
            accepting,
        }
    }

    /// The requests so far, each with its headers in lower case.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// How many answers nobody asked for.
    pub(crate) fn left(&self) -> usize {
        self.left.lock().len()
    }
}

async fn answer(
    mut client: TcpStream,
    answers: &Mutex<VecDeque<Answer>>,
    asked: &Mutex<Vec<String>>,
) {
    let Some(request) = read_request(&mut client).await else {
        return;
    };
    asked.lock().push(request);
    let answer = answers.lock().pop_front();
    if let Some(Answer::Say(status, headers, body)) = answer {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
        );
        let _ = client.write_all(text.as_bytes()).await;
        let _ = client.shutdown().await;
    }
}

/// The head of a request, in lower case; its body is read and forgotten.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let length = client.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let announced = text[..end]
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if bytes.len() >= end + 4 + announced {
            return Some(text[..end].to_owned());
        }
    }
}
