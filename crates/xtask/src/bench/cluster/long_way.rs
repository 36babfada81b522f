//! A long way to a server: who connects here is connected to it, and every byte is under way for a while.
//!
//! Invariants: both directions take the same time; bytes stay in their order. Of one connection 1 MiB at most is under way
//! in each: at 10 ms 100 MiB/s, about what an S3 server gives one of them, and little enough that this way does not keep
//! the processor from those who are measured. A new connection is made at once, as if one were kept open.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Taken up at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces under way in one direction of a connection at most.
const PIECES: usize = 16;

/// Bytes and when they arrive.
type Piece = (Instant, Vec<u8>);

/// Begins a way to a server on which a byte takes so long, and says where it begins. It ends with this process.
pub(super) fn to(server: SocketAddr, delay: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if let Err(error) = connect(&near, server, delay) {
                println!("    the way to {server} is closed: {error}");
            }
        }
    });
    Ok(address)
}

/// Carries what comes on either side to the other one.
fn connect(near: &TcpStream, server: SocketAddr, delay: Duration) -> Result<()> {
    let far = TcpStream::connect(server)?;
    for (from, to) in [(near, &far), (&far, near)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        to.set_nodelay(true)?;
        let (sender, receiver) = sync_channel(PIECES);
        thread::spawn(move || take_up(from, &sender, delay));
        thread::spawn(move || set_down(to, &receiver));
    }
    Ok(())
}

/// Ends when nothing comes any more or nobody takes it.
fn take_up(mut from: TcpStream, pieces: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = (Instant::now() + delay, buffer[..count].to_vec());
        if pieces.send(piece).is_err() {
            break;
        }
    }
    // Whoever sends is told when nobody takes it.
    from.shutdown(Shutdown::Read).ok();
}

fn set_down(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for (due, bytes) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_whole_in_order_and_late_in_both_directions() {
        const DELAY: Duration = Duration::from_millis(20);
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        });
        let sent: Vec<u8> = (0..PIECE_BYTES * 5).map(|at| (at / 7) as u8).collect();
        let began = Instant::now();
        let mut client = TcpStream::connect(to(address, DELAY).unwrap()).unwrap();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).unwrap();
        assert!(answered == sent, "{} bytes came back", answered.len());
        assert!(began.elapsed() >= 2 * DELAY, "{:?}", began.elapsed());
        echo.join().unwrap();
    }
}
