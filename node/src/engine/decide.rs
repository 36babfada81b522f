//! What a lane makes of a group of writes before they are laid out: versions, preconditions, and which take effect.
//!
//! Decided here because a lane is the one place where the writes of a key have an order. Later writes of a group see
//! the earlier ones. A version given from outside takes effect only above the one that is held, so the log of a key
//! holds rising versions, whatever order they came in. Not here: what happens after the sync (`lane`).

use std::collections::HashMap;

use zimcache_store::{Precondition, Result, Version};

use super::{
    lane::{Outcome, Rule, Write, answer},
    record::{KeyClass, Kind, flag},
    shared::{Key, Shared},
    slot::{KeyHash, View},
};

/// A group that has been decided: what to write, and who is told what without it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// To be written, in this order.
    pub(crate) writes: Vec<Write>,
    /// Not to be written; told after the sync, because what they gave way to may be in this group.
    pub(crate) refused: Vec<Refused>,
    /// Blobs that are written although they are there: nobody may change their pins meanwhile.
    pub(crate) rewritten: Vec<KeyHash>,
}

/// A write that takes no effect.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) write: Write,
    pub(crate) outcome: Outcome,
    /// Whether what it gave way to is in the same group.
    pub(crate) by_the_group: bool,
}

/// The newest record of a key, written or about to be.
#[derive(Debug, Clone, Copy)]
struct Held {
    stamp: Version,
    /// Whether it has a value that is served.
    live: bool,
    tombstone: bool,
    /// Its number in the group.
    at: Option<usize>,
}

/// What becomes of one write.
enum Decision {
    Write,
    Refuse(Outcome, bool),
}

/// The deciding of one group.
#[derive(Debug)]
pub(crate) struct Deciding<'a> {
    shared: &'a Shared,
    here: HashMap<KeyHash, Held>,
    group: Group,
}

impl<'a> Deciding<'a> {
    /// Gives versions, and sorts out what its rule refuses.
    pub(crate) fn of(shared: &'a Shared, collected: Vec<Write>) -> Group {
        let mut deciding = Deciding {
            shared,
            here: HashMap::new(),
            group: Group::default(),
        };
        for mut write in collected {
            match deciding.decide(&mut write) {
                Ok(Decision::Write) => deciding.take(write),
                Ok(Decision::Refuse(outcome, by_the_group)) => {
                    deciding.group.refused.push(Refused {
                        write,
                        outcome,
                        by_the_group,
                    });
                }
                Err(error) => answer(write, Err(error)),
            }
        }
        deciding.group
    }

    fn take(&mut self, write: Write) {
        let header = &write.header;
        if header.kind != Kind::Part && !matches!(write.rule, Rule::Moved(_)) {
            let held = Held {
                stamp: header.stamp(),
                live: !header.is_tombstone(),
                tombstone: header.is_tombstone(),
                at: Some(self.group.writes.len()),
            };
            self.here.insert(write.hash, held);
        }
        self.group.writes.push(write);
    }

    fn decide(&mut self, write: &mut Write) -> Result<Decision> {
        match write.rule {
            Rule::Moved(from) => return Ok(self.decide_move(write, from)),
            Rule::Given(precondition) => {
                let decision = self.decide_given(write, precondition)?;
                write.header.writing = self.new_writing();
                self.fence(write);
                return Ok(decision);
            }
            Rule::IfAbsent => {
                if let Some(held) = self.held(write)?.filter(|held| held.live) {
                    return Ok(Decision::Refuse(Outcome::Refused, held.at.is_some()));
                }
            }
            Rule::IfPresent => {
                let held = self.held(write)?;
                // Also when its time is over: it must not come back if that is raised.
                let Some(held) = held else {
                    return Ok(Decision::Refuse(Outcome::Refused, false));
                };
                if held.tombstone {
                    return Ok(Decision::Refuse(Outcome::Refused, held.at.is_some()));
                }
            }
            Rule::Newest | Rule::Pins(_) => {}
        }
        if write.header.kind.class() == KeyClass::Blob {
            self.keep_pins(write);
        }
        self.mint(write)?;
        self.fence(write);
        Ok(Decision::Write)
    }

    /// A record that moves goes on with the pins it has now.
    fn decide_move(&self, write: &mut Write, from: View) -> Decision {
        let found = self.shared.index.find(write.hash);
        let Some(now) = found.iter().find(|now| now.location == from.location) else {
            return Decision::Refuse(Outcome::Refused, false);
        };
        write.header.set_pins(now.pins());
        Decision::Write
    }

    /// Of two versions the higher one stays. One that is there already counts as written.
    fn decide_given(&mut self, write: &Write, precondition: Precondition) -> Result<Decision> {
        let stamp = write.header.stamp();
        self.shared.note_given(stamp.clock);
        let Some(held) = self.held(write)? else {
            return Ok(Decision::Write);
        };
        if held.stamp == stamp {
            if let Some(at) = held.at {
                self.group.writes[at].header.flags |= flag::of_pins(write.header.pins());
            }
            return Ok(Decision::Refuse(Outcome::Held(stamp), held.at.is_some()));
        }
        if precondition == Precondition::Absent && held.live {
            return Ok(Decision::Refuse(Outcome::Refused, held.at.is_some()));
        }
        if held.stamp > stamp {
            return Ok(Decision::Refuse(
                Outcome::Held(held.stamp),
                held.at.is_some(),
            ));
        }
        Ok(Decision::Write)
    }

    /// A tombstone says how long it is needed: until nothing is left in which an older version may lie. So does a note
    /// of pins.
    fn fence(&self, write: &mut Write) {
        if write.header.is_tombstone() {
            write.header.raw_size = self.shared.tombstone_fence();
        }
        if write.header.flags & flag::PINS != 0 {
            write.header.raw_size = self.shared.pins_fence();
        }
    }

    /// A blob that is written again keeps its pins, whichever record it is in.
    fn keep_pins(&mut self, write: &mut Write) {
        if write.header.is_tombstone() {
            return;
        }
        if let Some(at) = self.here.get(&write.hash).and_then(|held| held.at) {
            let earlier = &self.group.writes[at].header;
            if !earlier.is_tombstone() {
                write.header.flags |= flag::of_pins(earlier.pins());
            }
            return;
        }
        let index = &self.shared.index;
        if index.find(write.hash).iter().next().is_none() {
            return;
        }
        // First nobody else may change them, then they are looked at.
        self.group.rewritten.push(write.hash);
        self.shared.pinned.hold(write.hash);
        for view in index.find(write.hash).iter().filter(|view| !view.tombstone) {
            write.header.flags |= flag::of_pins(view.pins());
        }
    }

    /// Gives a version above every other of the key. Others give versions by clocks of their own: only where one of them
    /// was ahead of the clock here does it matter what is held.
    fn mint(&self, write: &mut Write) -> Result<()> {
        let minted = self.shared.next_version();
        write.header.version = minted;
        let class = write.header.kind.class();
        if class == KeyClass::Entry
            && minted <= self.shared.highest_given()
            && let Some(held) = self.held(write)?
            && held.stamp.clock >= minted
        {
            write.header.version = held.stamp.clock + 1;
            write.header.writing = self.new_writing();
        }
        Ok(())
    }

    /// A number that another writing of the same version hardly has.
    fn new_writing(&self) -> u32 {
        (self.shared.next_version() as u32).max(1)
    }

    fn held(&self, write: &Write) -> Result<Option<Held>> {
        if let Some(held) = self.here.get(&write.hash) {
            return Ok(Some(*held));
        }
        let newest = self.shared.newest(&Key::of(&write.header), write.hash)?;
        Ok(newest.map(|newest| {
            let tombstone = newest.header.is_tombstone();
            Held {
                stamp: newest.header.stamp(),
                live: !tombstone && !self.shared.is_over(&newest.header, &newest.view),
                tombstone,
                at: None,
            }
        }))
    }
}
