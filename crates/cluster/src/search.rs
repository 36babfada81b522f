//! Looking for a value on the nodes that may have it: one first, the next when it lacks it or is slow.
//!
//! Of an entry one owner of each open placement is asked and the highest version wins; an owner that was away is not
//! taken at its word while another one can be asked. Not here: the rest of the body (`source.rs`), what absence proves
//! (`proof.rs`). Dropping a search aborts what it asked. Before it fails for want of answers it also asks those that are
//! passed over, and again those that failed in the midst of it: a request is refused when nobody can answer, not when the
//! wrong one was away a moment ago.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};
use zimcache_link::{Error, Presence, Read, Result};
use zimcache_store::{ByteRange, RecordKey, RecordKind};

use crate::{
    ask::{Hit, Said, ask, ask_anyway},
    config::Durability,
    node::is_of_the_node,
    proof::{self, Answer},
    shared::{Shared, count},
    view::{Candidate, Plan, Role},
};

/// How long nodes that have not answered are waited for when the answer is clear without them.
const GRACE: Duration = Duration::from_millis(250);

/// After which pauses an undecided search is made again, when a node failed in the midst of it.
const AGAIN_AFTER: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
];

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a RecordKey,
    pub(crate) range: ByteRange,
    /// After which time the next node is asked.
    pub(crate) hedge: Duration,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Of an entry all versions met, else at most one.
    pub(crate) hits: Vec<Hit>,
    pub(crate) plan: Plan,
    pub(crate) answers: Vec<Answer>,
    /// Whether the durable tier has it not, or there is none.
    pub(crate) is_not_in_tier: bool,
    /// Whether a node that was worth asking failed: it, or this gateway's view of it, may be better soon.
    has_failures: bool,
}

type Asking<'a> = FuturesUnordered<BoxFuture<'a, (usize, Result<Said>)>>;

/// Looks for a value on all nodes that may have it.
///
/// # Errors
/// What a node says about the request itself, such as `RangeInvalid`.
pub(crate) async fn search(shared: &Shared, wanted: Wanted<'_>) -> Result<Findings> {
    for pause in AGAIN_AFTER {
        let findings = search_once(shared, wanted).await?;
        if findings.is_decided(shared, wanted.key) || !findings.has_failures {
            return Ok(findings);
        }
        drop(findings);
        sleep(pause).await;
    }
    search_once(shared, wanted).await
}

async fn search_once(shared: &Shared, wanted: Wanted<'_>) -> Result<Findings> {
    crate::shared::under_the_newest_ring(shared, || async {
        let mut search = Search::new(shared, wanted);
        search.run().await?;
        search.ask_those_passed_over().await?;
        search.fill().await?;
        Ok(search.findings)
    })
    .await
}

struct Search<'a> {
    shared: &'a Shared,
    wanted: Wanted<'a>,
    order: Vec<usize>,
    findings: Findings,
    started: Instant,
}

impl<'a> Search<'a> {
    fn new(shared: &'a Shared, wanted: Wanted<'a>) -> Search<'a> {
        let plan = shared.plan(wanted.key);
        let order = plan.reading_order(&shared.config.zone);
        let asked = |number| {
            if order.contains(&number) {
                Answer::Open
            } else {
                Answer::Silent
            }
        };
        Search {
            shared,
            wanted,
            findings: Findings {
                hits: Vec::new(),
                answers: (0..plan.candidates.len()).map(asked).collect(),
                plan,
                is_not_in_tier: !shared.has_tier(),
                has_failures: false,
            },
            order,
            started: Instant::now(),
        }
    }

    async fn run(&mut self) -> Result<()> {
        let mut asking = Asking::new();
        let mut hedge_at = self.started + self.wanted.hedge;
        loop {
            for number in self.due(asking.is_empty()) {
                self.start(number, &mut asking);
            }
            if asking.is_empty() || self.is_clear() {
                return Ok(());
            }
            let next = self.next(|_| true);
            // One timer for both: nearly every search ends before it was needed.
            let grace = (!self.is_late()).then(|| self.started + GRACE);
            let until = [grace, next.map(|_| hedge_at)].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some((number, said)) = asking.next() => self.take(number, said)?,
                () = sleep_until(until.unwrap_or(hedge_at)), if until.is_some() => {
                    let Some(number) = next.filter(|_| hedge_at <= Instant::now()) else {
                        continue;
                    };
                    count(&self.shared.counts.hedges);
                    self.start(number, &mut asking);
                    hedge_at = Instant::now() + self.wanted.hedge;
                }
            }
        }
    }

    fn start(&mut self, number: usize, asking: &mut Asking<'a>) {
        self.findings.answers[number] = Answer::Pending;
        let node = Arc::clone(&self.findings.plan.candidates[number].node);
        let read = self.read(false);
        let limit = self.shared.config.timing.first_byte;
        asking.push(Box::pin(
            async move { (number, ask(&node, read, limit).await) },
        ));
    }

    fn read(&self, fill: bool) -> Read {
        Read {
            epoch: self.findings.plan.epoch,
            key: self.wanted.key.clone(),
            range: self.wanted.range,
            fill,
        }
    }

    fn take(&mut self, number: usize, said: Result<Said>) -> Result<()> {
        self.findings.answers[number] = match said {
            Ok(Said::No(Presence::Absent)) => Answer::Absent,
            // "Present" without a value is an index that says yes and a disk that says no.
            Ok(Said::No(Presence::Unknown | Presence::Present)) => Answer::Silent,
            Ok(Said::Yes(hit)) => {
                self.shared.latency.note(self.started.elapsed());
                let is_entry = matches!(self.wanted.key.kind, RecordKind::Entry(_));
                let is_unsure = is_entry && hit.is_unsure;
                self.findings.hits.push(*hit);
                if is_unsure {
                    Answer::Unsure
                } else {
                    Answer::Found
                }
            }
            Err(error) if ends_the_search(&error) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a read goes on with another node");
                self.findings.has_failures = true;
                Answer::Silent
            }
        };
        Ok(())
    }

    /// Asks the owners that did not answer other requests, when it cannot be decided without them.
    async fn ask_those_passed_over(&mut self) -> Result<()> {
        if self.findings.is_decided(self.shared, self.wanted.key) {
            return Ok(());
        }
        let limit = self.shared.config.timing.connect;
        let candidates = self.findings.plan.candidates.iter().enumerate();
        let passed_over = candidates
            .filter(|(_, it)| it.is_any_owner() && !it.is_gone && !it.node.is_reachable());
        let mut asking: Asking<'_> = passed_over
            .map(|(number, it)| {
                let (node, read) = (Arc::clone(&it.node), self.read(false));
                let asked = async move { (number, ask_anyway(&node, read, limit).await) };
                asked.boxed()
            })
            .collect();
        let had_failures = self.findings.has_failures;
        while let Some((number, said)) = asking.next().await {
            self.take(number, said)?;
        }
        // That these fail is no news.
        self.findings.has_failures = had_failures;
        Ok(())
    }

    /// Whom to ask now, whether or not anybody is slow.
    fn due(&self, is_idle: bool) -> Vec<usize> {
        let is_entry = matches!(self.wanted.key.kind, RecordKind::Entry(_));
        let mut due = Vec::new();
        if is_entry {
            for role in self.placements() {
                let owners = self.said(role, Role::Owner);
                let is_served = owners
                    .into_iter()
                    .any(|it| matches!(it, Answer::Pending | Answer::Found));
                let next = self.next(|candidate| role(candidate) == Role::Owner);
                let next = next.filter(|number| !is_served && !due.contains(number));
                let is_common = due.iter().any(|number: &usize| {
                    role(&self.findings.plan.candidates[*number]) == Role::Owner
                });
                due.extend(next.filter(|_| !is_common));
            }
        }
        if due.is_empty() && is_idle {
            due.extend(self.next(|_| true));
        }
        due
    }

    /// The next candidate that is worth asking.
    fn next(&self, which: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let worth = |number: &usize| {
            let candidate = &self.findings.plan.candidates[*number];
            self.findings.answers[*number] == Answer::Open
                && which(candidate)
                && self.is_worth_asking(candidate)
        };
        self.order.iter().copied().find(worth)
    }

    fn is_worth_asking(&self, candidate: &Candidate) -> bool {
        if candidate.is_any_owner() {
            let mut open = self.placements().into_iter();
            return open
                .any(|role| role(candidate) == Role::Owner && !self.has(role, Answer::Found));
        }
        // A stand-in has nothing that every owner knows not to be there.
        let owners = self.findings.owners();
        self.findings.hits.is_empty() && owners.into_iter().any(|answer| answer != Answer::Absent)
    }

    /// Whether no further answer is needed.
    fn is_clear(&self) -> bool {
        let is_blob = matches!(self.wanted.key.kind, RecordKind::Blob(_));
        if self.findings.hits.is_empty() {
            let is_absent = if is_blob {
                self.findings.is_proven(true)
            } else {
                self.findings.is_denied()
            };
            return is_absent && self.is_late() && self.next(|_| true).is_none();
        }
        // Only an owner settles anything: without the word of one, those asked are waited for to the end.
        let is_known = self.findings.is_known_to_an_owner();
        let is_waiting = |answer| match answer {
            Answer::Open => true,
            Answer::Pending => !is_known || !self.is_late(),
            _ => false,
        };
        let is_settled = |role: RoleOf| {
            let owners = self.said(role, Role::Owner);
            self.has(role, Answer::Found) || !owners.into_iter().any(is_waiting)
        };
        is_blob || self.placements().into_iter().all(is_settled)
    }

    fn is_late(&self) -> bool {
        self.started.elapsed() >= GRACE
    }

    fn placements(&self) -> Vec<RoleOf> {
        let all: [RoleOf; 2] = [
            |candidate| candidate.current,
            |candidate| candidate.previous,
        ];
        all[..if self.findings.plan.is_changing { 2 } else { 1 }].to_vec()
    }

    fn said(&self, role: RoleOf, wanted: Role) -> Vec<Answer> {
        self.findings.said(|candidate| role(candidate) == wanted)
    }

    fn has(&self, role: RoleOf, answer: Answer) -> bool {
        self.said(role, Role::Owner).contains(&answer)
    }

    /// Lets the first owner look in the durable tier when no node has it.
    async fn fill(&mut self) -> Result<()> {
        if !self.findings.hits.is_empty() || self.findings.is_not_in_tier {
            return Ok(());
        }
        let candidates = &self.findings.plan.candidates;
        let may = |it: &&Candidate| it.current == Role::Owner && it.is_usable();
        let owners: Vec<_> = candidates
            .iter()
            .filter(may)
            .map(|it| Arc::clone(&it.node))
            .collect();
        for node in owners {
            match ask(&node, self.read(true), self.shared.config.timing.fill).await {
                Ok(Said::Yes(hit)) => {
                    self.findings.hits.push(*hit);
                    return Ok(());
                }
                Ok(Said::No(Presence::Absent)) => {
                    self.findings.is_not_in_tier = true;
                    return Ok(());
                }
                Err(error) if ends_the_search(&error) => return Err(error),
                Ok(Said::No(_)) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether a failure is not one of the node: of the request, or of our ring, which is too old.
const fn ends_the_search(error: &Error) -> bool {
    matches!(error, Error::StaleRing { .. }) || !is_of_the_node(error)
}

/// The role of a candidate in one of the placements.
type RoleOf = fn(&Candidate) -> Role;

impl Findings {
    fn said(&self, which: impl Fn(&Candidate) -> bool) -> Vec<Answer> {
        let both = self.plan.candidates.iter().zip(&self.answers);
        both.filter(|(candidate, _)| which(candidate))
            .map(|(_, answer)| *answer)
            .collect()
    }

    fn owners(&self) -> Vec<Answer> {
        self.said(Candidate::is_any_owner)
    }

    /// Whether the nodes prove that it is absent.
    pub(crate) fn is_proven(&self, may_replace: bool) -> bool {
        let plan = &self.plan;
        proof::is_absent(
            &plan.candidates,
            &self.answers,
            plan.is_changing,
            may_replace,
        )
    }

    /// Whether an owner in the current placement said no for certain.
    pub(crate) fn is_denied(&self) -> bool {
        self.said(|candidate| candidate.current == Role::Owner)
            .contains(&Answer::Absent)
    }

    /// Whether nothing that a node might still say can turn a refusal into an answer. What the durable tier says is left
    /// aside.
    fn is_decided(&self, shared: &Shared, key: &RecordKey) -> bool {
        match key.kind {
            RecordKind::Blob(_) => {
                let class = shared.durability_of(&key.namespace);
                !self.hits.is_empty() || self.is_proven(class != Durability::Local)
            }
            RecordKind::Entry(_) if self.hits.is_empty() => self.is_denied(),
            RecordKind::Entry(_) => self.is_known_to_an_owner(),
        }
    }

    /// Whether some owner has it, or denies it for certain.
    pub(crate) fn is_known_to_an_owner(&self) -> bool {
        let knows = |answer| matches!(answer, Answer::Absent | Answer::Found | Answer::Unsure);
        self.owners().into_iter().any(knows)
    }

    /// The owners in the current placement that are known to lack it.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = &Arc<crate::node::Node>> {
        let both = self.plan.candidates.iter().zip(&self.answers);
        let lack = |(candidate, answer): &(&Candidate, &Answer)| {
            candidate.current == Role::Owner && **answer == Answer::Absent
        };
        both.filter(lack).map(|(candidate, _)| &candidate.node)
    }
}
