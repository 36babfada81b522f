//! A server that answers every request with the same 1 KiB and does nothing else: what is left is the generator's own
//! limit and the kernel's. Used by the check rows only.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::Result;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

const LISTENER: Token = Token(usize::MAX);
const BODY_BYTES: usize = 1 << 10;

/// Says where it listens and answers until it is stopped.
pub(super) fn serve() -> Result<ExitCode> {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY_BYTES, b'x');
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections = HashMap::new();
    let mut next = 0;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections, &mut next)?;
            } else if let Some(stream) = connections.get_mut(&event.token())
                && !answer_all(stream, &answer)
            {
                connections.remove(&event.token());
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut HashMap<Token, TcpStream>,
    next: &mut usize,
) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        stream.set_nodelay(true)?;
        let token = Token(*next);
        *next += 1;
        poll.registry()
            .register(&mut stream, token, Interest::READABLE)?;
        connections.insert(token, stream);
    }
}

/// Answers what has come; `false` when the connection is over. Requests are taken to arrive in one piece.
fn answer_all(stream: &mut TcpStream, answer: &[u8]) -> bool {
    let mut request = [0; 4096];
    match stream.read(&mut request) {
        Ok(count) if count > 0 => {
            let last = request[..count].ends_with(b"Connection: close\r\n\r\n");
            stream.write_all(answer).is_ok() && !last
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
