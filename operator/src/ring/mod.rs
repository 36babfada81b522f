//! From how the nodes stand to the next ring document: pure. The document itself is changed only by `zimcache_ring::next`.
//!
//! One step at a time: while a placement is open nothing is decided but whether it can be closed. Invariants: a node that
//! does not answer is waited for, never skipped, unless it was declared lost; the members wanted are a matter of the spec
//! alone, never of the pods that happen to be there; a ring never starts with a number that somebody may have seen.

use std::collections::{BTreeMap, BTreeSet};

use zimcache_ring::{Change, Document, Error, Member, Refusal, State, next};

use crate::{
    drain,
    names::Names,
    node_client::{NodeReport, NodeReports, synced_epochs},
};

/// What the next step depends on.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// Names of everything.
    pub names: &'a Names,
    /// Nodes that the spec wants.
    pub wanted: i32,
    /// Copies of everything.
    pub factor: u32,
    /// The ring that is published.
    pub document: Option<&'a Document>,
    /// What the nodes say.
    pub reports: &'a NodeReports,
    /// The zone of each pod that has a machine; empty texts where zones do not matter.
    pub zones: &'a BTreeMap<String, String>,
    /// Whether nodes are waited for to learn their zones before the first ring is made.
    pub zone_aware: bool,
    /// Nodes that are given up.
    pub lost: &'a BTreeSet<String>,
    /// Nodes that go even if they cannot hand over what they have.
    pub forced: &'a BTreeSet<String>,
    /// Numbers of the volumes that are there and that no node has left for good.
    pub claimed: &'a BTreeSet<i32>,
    /// Now, in seconds since 1970.
    pub now_seconds: u64,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The first ring of the cache.
    Create(Document),
    /// The next ring, and why, for people.
    Publish(Document, String),
    /// Nothing can be done before somebody answers.
    Wait(Wait),
    /// The ring is as the spec wants it.
    Settled,
}

/// Who is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Pods without a machine, whose zones are not known.
    Machines(Vec<String>),
    /// New nodes that do not answer yet.
    Newcomers(Vec<String>),
    /// Members that have not handed over what they no longer own.
    HandOver(Vec<String>),
    /// The ring crate refused what was decided.
    Refused(String),
}

impl Seen<'_> {
    /// What a node says, if it answers.
    pub(crate) fn report(&self, pod: &str) -> Option<&NodeReport> {
        self.reports.get(pod)?.as_ref().ok()
    }

    fn member(&self, pod: &str) -> Member {
        let mut member = Member::new(pod);
        member.address = Some(self.names.address(pod));
        member.zone = self.zones.get(pod).cloned().unwrap_or_default();
        member
    }

    fn wanted_pods(&self) -> impl Iterator<Item = String> {
        (0..self.wanted).map(|ordinal| self.names.pod(ordinal))
    }
}

/// The next step.
pub fn next_step(seen: &Seen<'_>) -> Step {
    let Some(document) = seen.document else {
        return first(seen);
    };
    let step = marked(seen, document)
        .or_else(|| closing(seen, document))
        .or_else(|| {
            drain::leaving(seen, document).map(|leave| publish(document, &leave.0, leave.1))
        })
        .or_else(|| joining(seen, document))
        .or_else(|| settled_in(seen, document));
    step.unwrap_or(Step::Settled)
}

fn publish(document: &Document, change: &Change, why: String) -> Step {
    match next(document, change) {
        Ok(document) => Step::Publish(document, why),
        Err(refusal) => Step::Wait(refused(&refusal)),
    }
}

fn refused(refusal: &Refusal) -> Wait {
    match refusal {
        Refusal::Waiting { members } => Wait::HandOver(members.clone()),
        other => Wait::Refused(other.to_string()),
    }
}

/// The first ring. If volumes are there already, somebody had a ring once that is gone now.
fn first(seen: &Seen<'_>) -> Step {
    let beyond = seen
        .claimed
        .iter()
        .filter(|ordinal| **ordinal >= seen.wanted);
    let ordinals: BTreeSet<i32> = (0..seen.wanted).chain(beyond.copied()).collect();
    let pods: Vec<String> = ordinals
        .into_iter()
        .map(|ordinal| seen.names.pod(ordinal))
        .collect();
    if seen.zone_aware {
        let unknown = |pod: &&String| !seen.zones.contains_key(*pod);
        let waiting: Vec<String> = pods.iter().filter(unknown).cloned().collect();
        if !waiting.is_empty() {
            return Step::Wait(Wait::Machines(waiting));
        }
    }
    let members = pods.iter().map(|pod| seen.member(pod)).collect();
    match numbered(Document::first(seen.factor, members), epoch_of_first(seen)) {
        Ok(document) => Step::Create(document),
        Err(error) => Step::Wait(Wait::Refused(error.to_string())),
    }
}

/// 1 for a new cache. Where there was one before, nobody can say which numbers its gateways and nodes have seen, and they
/// follow higher ones only: the time is higher than any count of changes.
fn epoch_of_first(seen: &Seen<'_>) -> u64 {
    let reported = seen
        .reports
        .values()
        .flatten()
        .map(|report| report.epoch)
        .max()
        .unwrap_or(0);
    if reported == 0 && seen.claimed.is_empty() {
        return 1;
    }
    seen.now_seconds.max(reported + 1)
}

fn numbered(document: Result<Document, Error>, epoch: u64) -> Result<Document, Error> {
    let document = document?;
    if epoch == document.epoch() {
        return Ok(document);
    }
    let mut fields = serde_json::to_value(&document).map_err(Error::Syntax)?;
    fields["epoch"] = epoch.into();
    fields["current"]["published_epoch"] = epoch.into();
    Document::parse(&fields.to_string())
}

/// Who is given up, and who is back: states change at once, also while a placement is open.
fn marked(seen: &Seen<'_>, document: &Document) -> Option<Step> {
    let mut members = document.members();
    members.find_map(|member| {
        let id = &member.id;
        let given_up = seen.lost.contains(id) || drain::is_forced(seen, document, id);
        let state = match member.state {
            State::Lost if given_up => return None,
            State::Lost => returning(seen, document, id)?,
            State::Joining | State::Ready | State::Draining if given_up => State::Lost,
            _ => return None,
        };
        let why = format!("{id} is {}", state.as_str());
        let id = id.clone();
        Some(publish(document, &Change::Mark { id, state }, why))
    })
}

/// What a lost node becomes that answers again: an owner that fills itself, or one on its way out.
fn returning(seen: &Seen<'_>, document: &Document, id: &str) -> Option<State> {
    seen.report(id)?;
    let owns = document.current().member(id).is_some();
    Some(if owns {
        State::Joining
    } else {
        State::Draining
    })
}

/// An open placement: closed as soon as everybody has reported, waited for until then.
fn closing(seen: &Seen<'_>, document: &Document) -> Option<Step> {
    document.previous()?;
    let mut reports = synced_epochs(seen.reports);
    let holding_back = drain::holding_back(seen, document);
    reports.retain(|id, _| !holding_back.contains(id));
    let why = "everybody has what is theirs".to_owned();
    Some(publish(document, &Change::ClosePrevious { reports }, why))
}

/// Nodes that the ring lacks: all in one change, once all of them answer.
fn joining(seen: &Seen<'_>, document: &Document) -> Option<Step> {
    let is_new = |pod: &String| document.current().member(pod).is_none();
    let new: Vec<String> = seen.wanted_pods().filter(is_new).collect();
    if new.is_empty() {
        return None;
    }
    let silent = |pod: &&String| {
        seen.report(pod).is_none() || (seen.zone_aware && !seen.zones.contains_key(*pod))
    };
    let waiting: Vec<String> = new.iter().filter(silent).cloned().collect();
    if !waiting.is_empty() {
        return Some(Step::Wait(Wait::Newcomers(waiting)));
    }
    let why = format!("{} joining", new.join(", "));
    let members = new.iter().map(|pod| seen.member(pod)).collect();
    Some(publish(document, &Change::Join { members }, why))
}

/// A node that was lost and has everything again. Those that joined in a placement are ready when it is closed.
fn settled_in(seen: &Seen<'_>, document: &Document) -> Option<Step> {
    let joining = |member: &&Member| member.state == State::Joining;
    let caught_up = |member: &&Member| {
        seen.report(&member.id)
            .is_some_and(|report| !report.catching_up)
    };
    let id = document
        .current()
        .members
        .iter()
        .filter(joining)
        .find(caught_up)?
        .id
        .clone();
    let why = format!("{id} has caught up");
    let state = State::Ready;
    Some(publish(document, &Change::Mark { id, state }, why))
}

#[cfg(test)]
mod tests;
