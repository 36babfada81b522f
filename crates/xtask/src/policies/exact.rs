//! The textbook policies, object by object: what they would reach if keeping their order cost nothing.

use std::collections::{BTreeSet, VecDeque};

use super::{Policy, trace::Request};

/// Order of eviction: the smallest leaves first.
type Rank = (u64, u64);

/// Objects in an order that changes with every use.
#[derive(Debug)]
struct Ranked {
    order: BTreeSet<(Rank, u32)>,
    /// Rank and bytes of every object that is there.
    held: Vec<Option<(Rank, u64)>>,
    bytes: u64,
    capacity: u64,
    clock: u64,
}

impl Ranked {
    fn new(objects: usize, capacity: u64) -> Ranked {
        Ranked {
            order: BTreeSet::new(),
            held: vec![None; objects],
            bytes: 0,
            capacity,
            clock: 0,
        }
    }

    fn rank(&self, object: u32) -> Option<Rank> {
        self.held[object as usize].map(|(rank, _)| rank)
    }

    fn set_rank(&mut self, object: u32, rank: Rank) {
        if let Some((old, bytes)) = self.held[object as usize] {
            self.order.remove(&(old, object));
            self.order.insert((rank, object));
            self.held[object as usize] = Some((rank, bytes));
        }
    }

    fn insert(&mut self, request: Request, rank: Rank) {
        if request.bytes > self.capacity {
            return;
        }
        while self.bytes + request.bytes > self.capacity {
            let Some((_, victim)) = self.order.pop_first() else {
                break;
            };
            if let Some((_, bytes)) = self.held[victim as usize].take() {
                self.bytes -= bytes;
            }
        }
        self.bytes += request.bytes;
        self.order.insert((rank, request.object));
        self.held[request.object as usize] = Some((rank, request.bytes));
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Least recently used leaves first.
#[derive(Debug)]
pub(super) struct Lru(Ranked);

impl Lru {
    pub(super) fn new(objects: usize, capacity: u64) -> Lru {
        Lru(Ranked::new(objects, capacity))
    }
}

impl Policy for Lru {
    fn get(&mut self, request: Request) -> bool {
        let now = self.0.tick();
        let there = self.0.rank(request.object).is_some();
        self.0.set_rank(request.object, (now, 0));
        there
    }

    fn put(&mut self, request: Request) {
        let now = self.0.tick();
        self.0.insert(request, (now, 0));
    }
}

/// Least frequently used leaves first, of those the one not used for longest.
#[derive(Debug)]
pub(super) struct Lfu(Ranked);

impl Lfu {
    pub(super) fn new(objects: usize, capacity: u64) -> Lfu {
        Lfu(Ranked::new(objects, capacity))
    }
}

impl Policy for Lfu {
    fn get(&mut self, request: Request) -> bool {
        let now = self.0.tick();
        let Some((uses, _)) = self.0.rank(request.object) else {
            return false;
        };
        self.0.set_rank(request.object, (uses + 1, now));
        true
    }

    fn put(&mut self, request: Request) {
        let now = self.0.tick();
        self.0.insert(request, (1, now));
    }
}

/// First in, first out, and nothing is served for longer than a time to live.
#[derive(Debug)]
pub(super) struct Fifo {
    queue: VecDeque<Request>,
    /// When each object that is there was put.
    put_at: Vec<Option<u64>>,
    bytes: u64,
    capacity: u64,
    ttl_seconds: u64,
}

impl Fifo {
    pub(super) fn new(objects: usize, capacity: u64, ttl_seconds: u64) -> Fifo {
        Fifo {
            queue: VecDeque::new(),
            put_at: vec![None; objects],
            bytes: 0,
            capacity,
            ttl_seconds,
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.queue.pop_front() else {
            return false;
        };
        self.bytes -= oldest.bytes;
        // An object that expired and was put again is further behind, too.
        if self.put_at[oldest.object as usize] == Some(oldest.seconds) {
            self.put_at[oldest.object as usize] = None;
        }
        true
    }
}

impl Policy for Fifo {
    fn get(&mut self, request: Request) -> bool {
        let put_at = self.put_at[request.object as usize];
        put_at.is_some_and(|put_at| request.seconds - put_at < self.ttl_seconds)
    }

    fn put(&mut self, request: Request) {
        if request.bytes > self.capacity {
            return;
        }
        while self.bytes + request.bytes > self.capacity && self.drop_oldest() {}
        self.bytes += request.bytes;
        self.put_at[request.object as usize] = Some(request.seconds);
        self.queue.push_back(request);
    }
}
