//! A connection that lets others speak first.
//!
//! Who has something to send wakes the connection's task. If it ran at once, every message would be a system call, and
//! a packet, of its own; so it steps back once, until all who are ready now have said what they have to say, and then
//! sends all of it together. Where nobody else is ready it goes on at once.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_util::task::AtomicWaker;

use super::{Gathered, Io};

/// Polls a connection when the others had their turn.
#[derive(Debug)]
pub(crate) struct Unhurried<C, T> {
    connection: C,
    /// What the connection writes to.
    io: Gathered<T>,
    turn: Arc<Turn>,
    /// Of the turn.
    waker: Waker,
    is_waiting: bool,
}

/// The turn of a connection that has stepped back.
#[derive(Debug, Default)]
struct Turn {
    has_come: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<C, T> Unhurried<C, T> {
    pub(crate) fn new(connection: C, io: Gathered<T>) -> Unhurried<C, T> {
        let turn = Arc::new(Turn::default());
        Unhurried {
            connection,
            io,
            waker: Waker::from(Arc::clone(&turn)),
            turn,
            is_waiting: false,
        }
    }

    /// Waits until the others had their turn, once.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.turn.task.register(cx.waker());
        if !self.is_waiting {
            self.turn.has_come.store(false, Ordering::Release);
            let mut turn = Context::from_waker(&self.waker);
            // The runtime wakes whoever yields after all that is ready, and after it looked at the sockets.
            self.is_waiting = pin!(tokio::task::yield_now()).poll(&mut turn).is_pending();
        }
        if self.is_waiting && !self.turn.has_come.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.is_waiting = false;
        Poll::Ready(())
    }
}

impl<C: Future + Unpin, T: Io> Future for Unhurried<C, T> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        ready!(self.poll_turn(cx));
        let ended = Pin::new(&mut self.connection).poll(cx);
        // What cannot be sent now is sent when there is room, and a failure is met by the connection's next read.
        drop(self.io.poll_send(cx));
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc;
    use zimcache_telemetry::task;

    use super::*;

    #[tokio::test]
    async fn what_others_have_to_say_is_taken_in_one_turn() {
        let (sender, mut receiver) = mpsc::channel(50);
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let taking = std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            loop {
                match ready!(receiver.poll_recv(cx)) {
                    Some(()) => {}
                    None => return Poll::Ready(()),
                }
            }
        });
        let connection = task::spawn(
            "test",
            Unhurried::new(taking, Gathered::new(tokio::io::empty())),
        );
        let speakers = (0..50).map(|_| {
            let sender = sender.clone();
            task::spawn("test", async move { sender.send(()).await.unwrap() })
        });
        let speakers: Vec<_> = speakers.collect();
        drop(sender);
        for speaker in speakers {
            speaker.await.unwrap();
        }
        connection.await.unwrap();
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns <= 4, "{turns} turns for 50 messages");
    }
}
