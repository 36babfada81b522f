//! What may become of a ring document: one pure function from a document and a change to the next one.
//!
//! Rules: the epoch grows by one with every change; a new placement is published only when the previous one is closed,
//! so there are never more than two; a state is the same in both placements and needs no new one; the previous
//! placement is closed only when every member that is not gone has reported. Not here: when to change something (the
//! operator and people decide), and writing the document down.

use std::collections::BTreeMap;

use zimcache_types::{Code, Namespace};

use crate::{
    document::{Document, Fields, Member, Placement, State},
    error::Problems,
};

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New members, all in one new placement. Their state becomes joining.
    Join {
        /// Who.
        members: Vec<Member>,
    },
    /// Members go, all in one new placement: the living ones drain, the lost ones are dropped from the owners.
    Leave {
        /// Who.
        ids: Vec<String>,
    },
    /// Members take more or less than before: a new placement.
    Reweigh {
        /// New weights by id.
        weights: BTreeMap<String, u32>,
    },
    /// A member is in another state now, in both placements.
    Mark {
        /// Who.
        id: String,
        /// In which state.
        state: State,
    },
    /// The previous placement is no longer needed. Who was joining is ready.
    ClosePrevious {
        /// What the members report as their `syncedEpoch`, by id.
        reports: BTreeMap<String, u64>,
    },
    /// Everything in a namespace is void.
    RaiseGeneration {
        /// Which one.
        namespace: Namespace,
    },
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A new placement has to wait for the one before the current.
    #[error("the previous placement is still open; a new one has to wait until it is closed")]
    PreviousOpen,
    /// There is no previous placement to close.
    #[error("no previous placement is open")]
    NothingOpen,
    /// Members have not pushed what they no longer own.
    #[error("the previous placement waits for {}", members.join(", "))]
    Waiting {
        /// Who.
        members: Vec<String>,
    },
    /// No member has this id.
    #[error("no member has the id {id:?}")]
    UnknownMember {
        /// Which.
        id: String,
    },
    /// The id is taken.
    #[error("a member has the id {id} already")]
    KnownMember {
        /// Which.
        id: String,
    },
    /// No member gets from the one state into the other.
    #[error("member {id} is {from}; it cannot become {to}")]
    State {
        /// Who.
        id: String,
        /// Its state.
        from: &'static str,
        /// What was asked for.
        to: &'static str,
    },
    /// Nothing would be different.
    #[error("the change changes nothing")]
    Unchanged,
    /// What would come out is no valid document.
    #[error("the ring document would be unusable: {0}")]
    Invalid(Problems),
}

impl Refusal {
    /// What kind of failure this is.
    pub const fn code(&self) -> Code {
        match self {
            Refusal::PreviousOpen | Refusal::Waiting { .. } => Code::Unavailable,
            Refusal::UnknownMember { .. } => Code::NotFound,
            Refusal::KnownMember { .. }
            | Refusal::NothingOpen
            | Refusal::State { .. }
            | Refusal::Unchanged => Code::Conflict,
            Refusal::Invalid(_) => Code::Invalid,
        }
    }
}

/// The document after the change.
///
/// # Errors
/// A [`Refusal`] that says what stands against it.
pub fn next(document: &Document, change: &Change) -> Result<Document, Refusal> {
    let mut fields = document.fields().clone();
    // Written down before the epoch moves on, so that the epoch of publication stays what it was.
    fields.current.published_epoch = Some(document.published_epoch());
    fields.epoch += 1;
    match change {
        Change::Join { members } => join(&mut fields, members)?,
        Change::Leave { ids } => leave(&mut fields, ids)?,
        Change::Reweigh { weights } => reweigh(&mut fields, weights)?,
        Change::Mark { id, state } => mark(&mut fields, id, *state)?,
        Change::ClosePrevious { reports } => {
            let waiting = document.waiting_for(reports);
            close_previous(&mut fields, &waiting)?;
        }
        Change::RaiseGeneration { namespace } => {
            let name = namespace.as_str().to_owned();
            *fields.generations.entry(name).or_default() += 1;
        }
    }
    Document::checked(fields).map_err(Refusal::Invalid)
}

/// Makes the current placement the previous one and gives the members to put into the new one.
fn publish(fields: &mut Fields) -> Result<&mut Vec<Member>, Refusal> {
    if fields.previous.is_some() {
        return Err(Refusal::PreviousOpen);
    }
    let new = Placement {
        published_epoch: Some(fields.epoch),
        members: fields.current.members.clone(),
    };
    fields.previous = Some(std::mem::replace(&mut fields.current, new));
    Ok(&mut fields.current.members)
}

fn join(fields: &mut Fields, members: &[Member]) -> Result<(), Refusal> {
    if members.is_empty() {
        return Err(Refusal::Unchanged);
    }
    let current = publish(fields)?;
    for member in members {
        if current.iter().any(|known| known.id == member.id) {
            return Err(Refusal::KnownMember {
                id: member.id.clone(),
            });
        }
        current.push(Member {
            state: State::Joining,
            ..member.clone()
        });
    }
    Ok(())
}

fn leave(fields: &mut Fields, ids: &[String]) -> Result<(), Refusal> {
    if ids.is_empty() {
        return Err(Refusal::Unchanged);
    }
    let current = publish(fields)?;
    for id in ids {
        find(current, id)?;
    }
    current.retain(|member| !ids.contains(&member.id));
    let previous = fields
        .previous
        .iter_mut()
        .flat_map(|previous| &mut previous.members);
    for member in previous {
        if ids.contains(&member.id) && member.state != State::Lost {
            member.state = State::Draining;
        }
    }
    Ok(())
}

fn reweigh(fields: &mut Fields, weights: &BTreeMap<String, u32>) -> Result<(), Refusal> {
    let current = publish(fields)?;
    let mut changed = false;
    for (id, weight) in weights {
        let member = find(current, id)?;
        changed |= member.weight != *weight;
        member.weight = *weight;
    }
    if changed {
        Ok(())
    } else {
        Err(Refusal::Unchanged)
    }
}

fn mark(fields: &mut Fields, id: &str, state: State) -> Result<(), Refusal> {
    let owns = find(&mut fields.current.members, id).is_ok();
    let previous = fields
        .previous
        .iter_mut()
        .flat_map(|previous| &mut previous.members);
    let places: Vec<&mut Member> = fields
        .current
        .members
        .iter_mut()
        .chain(previous)
        .filter(|member| member.id == id)
        .collect();
    let Some(from) = places.first().map(|member| member.state) else {
        return Err(Refusal::UnknownMember { id: id.to_owned() });
    };
    if from == state {
        return Err(Refusal::Unchanged);
    }
    if !may_become(from, state, owns) {
        return Err(Refusal::State {
            id: id.to_owned(),
            from: from.as_str(),
            to: state.as_str(),
        });
    }
    for member in places {
        member.state = state;
    }
    Ok(())
}

/// A lost member that is back starts over, as one that joins or, if it owns nothing any more, as one that drains.
const fn may_become(from: State, to: State, owns: bool) -> bool {
    match (from, to) {
        (State::Joining | State::Ready | State::Draining, State::Lost)
        | (State::Draining, State::Drained) => true,
        (State::Joining, State::Ready) | (State::Lost, State::Joining) => owns,
        (State::Lost, State::Draining) => !owns,
        _ => false,
    }
}

fn close_previous(fields: &mut Fields, waiting: &[&str]) -> Result<(), Refusal> {
    if fields.previous.is_none() {
        return Err(Refusal::NothingOpen);
    }
    if !waiting.is_empty() {
        return Err(Refusal::Waiting {
            members: waiting.iter().map(|id| (*id).to_owned()).collect(),
        });
    }
    fields.previous = None;
    let joined = |member: &&mut Member| member.state == State::Joining;
    let ready = |member: &mut Member| member.state = State::Ready;
    fields
        .current
        .members
        .iter_mut()
        .filter(joined)
        .for_each(ready);
    Ok(())
}

fn find<'a>(members: &'a mut [Member], id: &str) -> Result<&'a mut Member, Refusal> {
    let found = members.iter_mut().find(|member| member.id == id);
    found.ok_or_else(|| Refusal::UnknownMember { id: id.to_owned() })
}
