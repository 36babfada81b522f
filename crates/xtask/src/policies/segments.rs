//! S3-FIFO as the store does it: whole segments leave, and what was used in them moves.
//!
//! The shares and limits are those of `node/src/engine/reclaim.rs`. A record larger than a segment's rest starts the
//! next one; large values lie in one piece here, in the store in parts, which leave together all the same.

use std::collections::VecDeque;

use super::{Policy, trace::Request};

/// Segments of a store.
const SEGMENTS: u64 = 128;
/// Fewest segments that stay free.
const RESERVE: u64 = 4;
/// Share of all segments that probation is brought down to.
const PROBATION_PERCENT: u64 = 10;
/// Most bytes of a segment that move only because they were used.
const USED_PERCENT: u64 = 75;
/// Most uses that count.
const MOST_USES: u8 = 3;

/// Objects written one after the other.
#[derive(Debug, Default)]
struct Segment {
    objects: Vec<(u32, u64)>,
    bytes: u64,
}

/// Segments of one class: the open one is the last.
#[derive(Debug, Default)]
struct Class(VecDeque<Segment>);

/// The store's segments and uses.
#[derive(Debug)]
pub(super) struct Segments {
    segment_bytes: u64,
    probation: Class,
    main: Class,
    /// Uses of every object that is there.
    uses: Vec<Option<u8>>,
}

impl Class {
    fn append(&mut self, object: u32, bytes: u64, segment_bytes: u64) {
        let last = self.0.back();
        if last.is_none_or(|last| last.bytes > 0 && last.bytes + bytes > segment_bytes) {
            self.0.push_back(Segment::default());
        }
        if let Some(segment) = self.0.back_mut() {
            segment.objects.push((object, bytes));
            segment.bytes += bytes;
        }
    }

    /// How many segments of the usual size it takes.
    fn len(&self, segment_bytes: u64) -> u64 {
        let sizes = self
            .0
            .iter()
            .map(|segment| segment.bytes.div_ceil(segment_bytes));
        sizes.sum()
    }
}

impl Segments {
    pub(super) fn new(objects: usize, capacity: u64) -> Segments {
        Segments {
            segment_bytes: (capacity / SEGMENTS).max(1),
            probation: Class::default(),
            main: Class::default(),
            uses: vec![None; objects],
        }
    }

    fn taken(&self) -> u64 {
        self.probation.len(self.segment_bytes) + self.main.len(self.segment_bytes)
    }

    /// Empties the segment whose turn it is; `false` when there is none.
    fn reclaim(&mut self) -> bool {
        let probation = self.probation.len(self.segment_bytes);
        let from_probation =
            probation * 100 / SEGMENTS > PROBATION_PERCENT || self.main.0.is_empty();
        let class = if from_probation {
            &mut self.probation
        } else {
            &mut self.main
        };
        let Some(victim) = class.0.pop_front() else {
            return false;
        };
        let mut left = self.segment_bytes * USED_PERCENT / 100;
        for (object, bytes) in victim.objects {
            let uses = &mut self.uses[object as usize];
            match uses {
                Some(count @ 1..) if left >= bytes => {
                    left -= bytes;
                    *count -= 1;
                    self.main.append(object, bytes, self.segment_bytes);
                }
                _ => *uses = None,
            }
        }
        true
    }
}

impl Policy for Segments {
    fn get(&mut self, request: Request) -> bool {
        let uses = &mut self.uses[request.object as usize];
        if let Some(count) = uses {
            *count = (*count + 1).min(MOST_USES);
        }
        uses.is_some()
    }

    fn put(&mut self, request: Request) {
        if request.bytes > self.segment_bytes * (SEGMENTS / 2) {
            return;
        }
        let object = request.object;
        self.probation
            .append(object, request.bytes, self.segment_bytes);
        self.uses[object as usize] = Some(0);
        while self.taken() > SEGMENTS - RESERVE && self.reclaim() {}
    }
}
