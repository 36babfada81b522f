//! What people are told in the events of a ZimCache: what changed, never what is still the same.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _, ResourceExt as _};

use crate::{
    conditions::is_true,
    crd::{ZimCache, ZimCacheStatus, condition},
    names::MANAGER,
};

/// A piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// One word.
    pub reason: &'static str,
    /// What the operator did or saw.
    pub note: String,
}

impl News {
    /// Something went as it should.
    pub fn normal(reason: &'static str, note: impl Into<String>) -> News {
        News {
            is_warning: false,
            reason,
            note: note.into(),
        }
    }

    /// Somebody should look.
    pub fn warning(reason: &'static str, note: impl Into<String>) -> News {
        News {
            is_warning: true,
            ..News::normal(reason, note)
        }
    }
}

/// Longest note; the API takes 1 kB.
const NOTE_LIMIT: usize = 900;

/// Tells news.
#[derive(Clone)]
pub struct Teller(Recorder);

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

impl Teller {
    /// As the operator with this identity.
    pub fn new(client: Client, identity: Option<String>) -> Teller {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: identity,
        };
        Teller(Recorder::new(client, reporter))
    }

    /// Tells all of it. An event that cannot be written is logged: it is no reason to fail.
    pub async fn tell(&self, object: &ZimCache, news: &[News]) {
        let about: ObjectReference = object.object_ref(&());
        for one in news {
            let mut note = one.note.clone();
            while note.len() > NOTE_LIMIT {
                note.pop();
            }
            let (reason, name) = (one.reason, object.name_any());
            tracing::info!(namespace = object.namespace(), name, reason, note, "news");
            let event = Event {
                type_: if one.is_warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: reason.to_owned(),
                note: Some(note),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.0.publish(&event, &about).await {
                tracing::warn!(%error, "an event could not be written");
            }
        }
    }
}

/// The conditions whose turning is news: type, status that calls for somebody, word for it.
const WATCHED: [(&str, &str, &str); 9] = [
    (condition::READY, "", "Ready"),
    (condition::STALLED, "True", "Stalled"),
    (condition::DURABLE_TIER_REACHABLE, "False", "DurableTier"),
    (condition::RATE_LIMITER_REACHABLE, "False", "RateLimiter"),
    (condition::SCALE_DOWN_BLOCKED, "True", "ScaleDownBlocked"),
    (
        condition::RING_TRANSITION_BLOCKED,
        "True",
        "RingTransitionBlocked",
    ),
    (condition::CERTIFICATES_READY, "False", "Certificates"),
    (condition::RECONCILIATION_PAUSED, "", "Paused"),
    (condition::STORAGE_RESIZING, "", "StorageResizing"),
];

/// What turned between two statuses.
pub fn between(before: &ZimCacheStatus, after: &ZimCacheStatus) -> Vec<News> {
    let mut news = Vec::new();
    for (kind, bad, word) in WATCHED {
        let of = |status: &ZimCacheStatus| {
            status
                .conditions
                .iter()
                .find(|one| one.type_ == kind)
                .cloned()
        };
        let (was, is) = (of(before), of(after));
        let was_status = was.as_ref().map_or("False", |one| one.status.as_str());
        let Some(is) = is.filter(|is| is.status != was_status && is.status != "Unknown") else {
            continue;
        };
        let note = format!("{kind} is {}: {} {}", is.status, is.reason, is.message);
        let note = note.trim_end().to_owned();
        news.push(if is.status == bad {
            News::warning(word, note)
        } else {
            News::normal(word, note)
        });
    }
    news.extend(missing_secret(before, after));
    news
}

/// A Secret that went missing, or another one than before.
fn missing_secret(before: &ZimCacheStatus, after: &ZimCacheStatus) -> Option<News> {
    let of = |status: &ZimCacheStatus| {
        let ready = status
            .conditions
            .iter()
            .find(|one| one.type_ == condition::READY);
        ready
            .filter(|one| one.reason == "SecretMissing")
            .map(|one| one.message.clone())
    };
    let now = of(after).filter(|_| !is_true(&after.conditions, condition::READY))?;
    (of(before).as_ref() != Some(&now)).then(|| News::warning("SecretMissing", now))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::conditions::Conditions;

    fn status(is_ready: bool, reason: &str, tier: Option<bool>) -> ZimCacheStatus {
        let mut conditions = Conditions::new(&[], 1, Timestamp::UNIX_EPOCH);
        conditions.set(condition::READY, is_ready, reason, "why");
        if let Some(tier) = tier {
            conditions.set(condition::DURABLE_TIER_REACHABLE, tier, "Word", "");
        }
        ZimCacheStatus {
            conditions: conditions.finish(),
            ..ZimCacheStatus::default()
        }
    }

    #[test]
    fn only_what_turned_is_news() {
        let before = status(false, "Pods", Some(true));
        assert!(between(&before, &before).is_empty());
        let after = status(true, "AsSpecified", Some(false));
        let news = between(&before, &after);
        assert_eq!(news.len(), 2);
        assert_eq!((news[0].reason, news[0].is_warning), ("Ready", false));
        assert_eq!((news[1].reason, news[1].is_warning), ("DurableTier", true));
    }

    #[test]
    fn a_missing_secret_is_told_once() {
        let missing = status(false, "SecretMissing", None);
        let news = between(&ZimCacheStatus::default(), &missing);
        assert_eq!(
            news.iter()
                .filter(|one| one.reason == "SecretMissing")
                .count(),
            1
        );
        assert!(between(&missing, &missing).is_empty());
    }
}
