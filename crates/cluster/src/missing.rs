//! FindMissing: one question to each owner for all it may have, the others only for what no owner has.
//!
//! All owners are asked, so that "present" is not said of a copy that one disk alone has: who lacks it is sent it, and
//! every copy counts as used. A node that is slow is not waited for when another has it, else it is doubled by the next
//! one and may still answer. "Missing" needs the word of one owner in the current placement, and nobody else who has it;
//! whether that was proof is counted. RAM is never asked.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use smallvec::SmallVec;
use zimcache_link::{Error, Find, Presence};
use zimcache_store::{RecordKey, Result, Touch};
use zimcache_types::{Digest, Namespace};

use crate::{
    config::Durability,
    node::{Node, store_error, unavailable},
    proof::{self, Answer},
    repair::Repair,
    shared::{Shared, count},
    view::{Plan, Role, View},
};

/// Blobs in one question at most.
const BATCH: usize = 4096;

/// For each digest whether it is absent.
pub(crate) async fn missing(
    shared: &Shared,
    namespace: &Namespace,
    digests: &[Digest],
    touch: Touch,
) -> Result<Vec<bool>> {
    let found = crate::shared::under_the_newest_ring(shared, || async {
        let mut inquiry = Inquiry::new(shared, namespace, digests, touch);
        inquiry.run().await?;
        Ok(inquiry)
    });
    let inquiry = found.await.map_err(store_error)?;
    inquiry
        .items
        .iter()
        .map(|item| inquiry.is_missing(item))
        .collect()
}

/// An answer of each candidate; those of one blob lie with it, so that a question does not ask for memory once for each.
type Answers = SmallVec<[Answer; 8]>;

struct Inquiry<'a> {
    shared: &'a Shared,
    view: Arc<View>,
    touch: Touch,
    /// Whether stand-ins may speak for an owner.
    may_replace: bool,
    items: Vec<Item>,
    questions: Vec<Question>,
    calls: FuturesUnordered<BoxFuture<'a, Event>>,
}

/// A blob that is asked for.
struct Item {
    key: RecordKey,
    size: Option<u64>,
    way: Arc<Way>,
    answers: Answers,
    holder: Option<Arc<Node>>,
    /// A node that was asked is slow: those that answered are enough.
    is_late: bool,
    is_empty: bool,
}

/// Whom items in the same places concern.
struct Way {
    plan: Plan,
    order: Vec<usize>,
    /// The owners in the current placement among them.
    owners: Vec<usize>,
    /// What is known before anybody was asked.
    unasked: Answers,
}

impl Way {
    fn new(plan: Plan, zone: &str) -> Way {
        let order = plan.reading_order(zone);
        let asked = |number| {
            if order.contains(&number) {
                Answer::Open
            } else {
                Answer::Silent
            }
        };
        let is_owner = |number: &usize| plan.candidates[*number].current == Role::Owner;
        Way {
            unasked: (0..plan.candidates.len()).map(asked).collect(),
            owners: order.iter().copied().filter(is_owner).collect(),
            order,
            plan,
        }
    }
}

/// Items that a node is asked for, and the node's number in the plan of each.
type Asked = Vec<(usize, usize)>;

/// What a node was asked.
struct Question {
    items: Asked,
    is_answered: bool,
}

enum Event {
    Slow(usize),
    Answer(usize, zimcache_link::Result<Vec<Presence>>),
}

impl<'a> Inquiry<'a> {
    fn new(shared: &'a Shared, namespace: &Namespace, digests: &[Digest], touch: Touch) -> Self {
        let view = shared.view();
        let mut ways = HashMap::new();
        let mut item = |digest: &Digest| {
            let key = RecordKey::blob(namespace, digest);
            let places = view.places(&key);
            let new = || Arc::new(Way::new(view.plan_of(places), &shared.config.zone));
            let way = Arc::clone(ways.entry(places).or_insert_with(new));
            Item {
                answers: SmallVec::from_slice(&way.unasked),
                size: digest.size_bytes,
                is_empty: digest.is_empty_blob(),
                holder: None,
                is_late: false,
                key,
                way,
            }
        };
        let items = digests.iter().map(&mut item).collect();
        Inquiry {
            items,
            may_replace: shared.durability_of(namespace) != Durability::Local,
            shared,
            view,
            touch,
            questions: Vec::new(),
            calls: FuturesUnordered::new(),
        }
    }

    async fn run(&mut self) -> zimcache_link::Result<()> {
        let all = self.items.iter().enumerate();
        let all = all.filter(|(_, item)| !item.is_empty);
        let owners = all.flat_map(|(number, item)| {
            let owners = item.way.owners.iter();
            owners.map(move |owner| (number, *owner))
        });
        self.ask_all(owners.collect());
        while self.questions.iter().any(|question| !question.is_answered) {
            match self.calls.next().await {
                Some(Event::Slow(question)) => self.double(question),
                Some(Event::Answer(question, said)) => self.take(question, said)?,
                None => break,
            }
            if self.items.iter().all(|item| item.is_over(self.may_replace)) {
                break;
            }
        }
        Ok(())
    }

    /// Asks the next candidate of each of these items; whether there was any.
    fn ask_next(&mut self, items: &[usize]) -> bool {
        let next = |number: &usize| Some((*number, self.items[*number].next()?));
        let asked: Asked = items.iter().filter_map(next).collect();
        let is_any = !asked.is_empty();
        self.ask_all(asked);
        is_any
    }

    /// Asks candidates about items, in one question to each node.
    fn ask_all(&mut self, asked: Asked) {
        let mut by_node: Vec<(Arc<Node>, Asked)> = Vec::new();
        for (number, candidate) in asked {
            let item = &mut self.items[number];
            item.answers[candidate] = Answer::Pending;
            let node = &item.way.plan.candidates[candidate].node;
            let known = by_node
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, node));
            match known {
                Some((_, group)) => group.push((number, candidate)),
                None => by_node.push((Arc::clone(node), vec![(number, candidate)])),
            }
        }
        for (node, group) in by_node {
            group
                .chunks(BATCH)
                .for_each(|batch| self.ask(&node, batch.to_vec()));
        }
    }

    fn ask(&mut self, node: &Arc<Node>, items: Asked) {
        let asked = || items.iter().map(|(number, _)| &self.items[*number]);
        let find = Find {
            epoch: self.view.epoch(),
            keys: asked().map(|item| item.key.clone()).collect(),
            sizes: asked().map(|item| item.size).collect(),
            touch: self.touch,
        };
        let (question, count) = (self.questions.len(), items.len());
        self.questions.push(Question {
            items,
            is_answered: false,
        });
        let timing = &self.shared.config.timing;
        let (limit, hedge): (Duration, Duration) = (timing.first_byte, timing.hedge_find);
        let node = Arc::clone(node);
        self.calls.push(Box::pin(async move {
            let said = node.call(limit, node.peer.find(find)).await;
            let said = said.and_then(|said| {
                if said.len() == count {
                    Ok(said)
                } else {
                    Err(node.unreachable("it answered another question"))
                }
            });
            Event::Answer(question, said)
        }));
        self.calls.push(Box::pin(async move {
            tokio::time::sleep(hedge).await;
            Event::Slow(question)
        }));
    }

    /// Asks the next candidates too, for a node is slow.
    fn double(&mut self, question: usize) {
        let slow = &self.questions[question];
        if slow.is_answered {
            return;
        }
        let items: Vec<_> = slow.items.iter().map(|(number, _)| *number).collect();
        for number in &items {
            self.items[*number].is_late = true;
        }
        if self.ask_next(&items) {
            count(&self.shared.counts.hedges);
        }
    }

    fn take(
        &mut self,
        question: usize,
        said: zimcache_link::Result<Vec<Presence>>,
    ) -> zimcache_link::Result<()> {
        if let Err(error @ Error::StaleRing { .. }) = said {
            return Err(error);
        }
        let asked = &mut self.questions[question];
        asked.is_answered = true;
        let mut left = Vec::new();
        for (at, (number, candidate)) in std::mem::take(&mut asked.items).into_iter().enumerate() {
            let item = &mut self.items[number];
            let said = said.as_ref().map_or(Presence::Unknown, |said| said[at]);
            item.take(candidate, said);
            if !item.answers.contains(&Answer::Pending) {
                left.push(number);
            }
        }
        self.ask_next(&left);
        Ok(())
    }

    /// What follows for an item from all that was said.
    fn is_missing(&self, item: &Item) -> Result<bool> {
        if item.is_empty {
            return Ok(false);
        }
        let of_current = |(candidate, answer): &(&crate::view::Candidate, &Answer)| {
            candidate.current == Role::Owner && **answer == Answer::Absent
        };
        let both = item.way.plan.candidates.iter().zip(&item.answers);
        let mut lacking = both
            .filter(of_current)
            .map(|(candidate, _)| &candidate.node)
            .peekable();
        if let Some(holder) = &item.holder {
            lacking.for_each(|target| self.repair(item, target, holder));
            return Ok(false);
        }
        if lacking.peek().is_none() {
            return Err(unavailable("no owner of the blob can be reached"));
        }
        if !item.is_proven(self.may_replace) {
            count(&self.shared.counts.unproven_misses);
        }
        Ok(true)
    }

    fn repair(&self, item: &Item, target: &Arc<Node>, from: &Arc<Node>) {
        self.shared.repair(Repair {
            key: item.key.clone(),
            target: Arc::clone(target),
            from: Arc::clone(from),
            size_bytes: item.size.unwrap_or_default(),
        });
    }
}

impl Item {
    /// Whom to ask next when nobody has it: owners, then stand-ins unless every owner knows that it is not there.
    fn next(&self) -> Option<usize> {
        if self.holder.is_some() {
            return None;
        }
        let owners = self.way.plan.candidates.iter().zip(&self.answers);
        let mut owners = owners.filter(|(candidate, _)| candidate.is_any_owner());
        let is_denied = owners.all(|(_, answer)| *answer == Answer::Absent);
        let worth = |number: &usize| {
            let is_owner = self.way.plan.candidates[*number].is_any_owner();
            self.answers[*number] == Answer::Open && (is_owner || !is_denied)
        };
        self.way.order.iter().copied().find(worth)
    }

    fn take(&mut self, candidate: usize, said: Presence) {
        self.answers[candidate] = match said {
            Presence::Absent => Answer::Absent,
            Presence::Unknown => Answer::Silent,
            Presence::Present => Answer::Found,
        };
        if said == Presence::Present && self.holder.is_none() {
            self.holder = Some(Arc::clone(&self.way.plan.candidates[candidate].node));
        }
    }

    /// Whether no further answer is needed.
    fn is_over(&self, may_replace: bool) -> bool {
        let is_held = self.holder.is_some() && (self.is_late || !self.is_waiting_for_an_owner());
        self.is_empty || is_held || self.is_proven(may_replace)
    }

    fn is_waiting_for_an_owner(&self) -> bool {
        let mut owners = self.way.owners.iter();
        owners.any(|owner| self.answers[*owner] == Answer::Pending)
    }

    fn is_proven(&self, may_replace: bool) -> bool {
        let plan = &self.way.plan;
        proof::is_absent(
            &plan.candidates,
            &self.answers,
            plan.is_changing,
            may_replace,
        )
    }
}
