//! The ring document: who is a member, under which epoch, and what was so before.
//!
//! JSON, read from a file, an endpoint or a ConfigMap; one writer, which uses only [`crate::next`]. A reader refuses
//! what it does not know: a field that an old version ignored might be a rule, and it goes on with the last document.
//! Invariant: a [`Document`] that exists is valid.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use serde::{Deserialize, Serialize};
use zimcache_types::Namespace;

use crate::{
    error::{Error, Problems, Result},
    validate::problems,
};

/// The name of the one hash there is: xxh3-64 of `<id>#<n>`.
pub const HASH: &str = "v1";
/// The weight of an ordinary node.
pub const STANDARD_WEIGHT: u32 = 100;
/// Largest file that is read, in bytes: the most members twice, with long names and addresses.
const LIMIT_BYTES: u64 = 16 << 20;

/// What a member does and is trusted with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// New in the current placement: owns, takes writes, and fetches what it lacks from the previous owners.
    Joining,
    /// In full service.
    #[default]
    Ready,
    /// Only in the previous placement: hands over what it holds.
    Draining,
    /// Has handed over everything; its disk may go.
    Drained,
    /// Declared lost, by a person or because its machine is gone. Nobody waits for it.
    Lost,
}

impl State {
    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Joining => "joining",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Drained => "drained",
            State::Lost => "lost",
        }
    }

    /// Whether nobody waits for a member in this state: it reports no more.
    pub const fn is_gone(self) -> bool {
        matches!(self, State::Drained | State::Lost)
    }
}

/// A node in a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, which decides its places on the ring. It survives restarts and new disks.
    pub id: String,
    /// How much it takes beside the others; 100 is the standard.
    #[serde(default = "standard_weight")]
    pub weight: u32,
    /// What fails together with it. Empty: all without a zone are one zone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// What it does at present.
    #[serde(default)]
    pub state: State,
    /// Where its internal service answers, such as `https://10.0.0.7:4711`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

const fn standard_weight() -> u32 {
    STANDARD_WEIGHT
}

impl Member {
    /// A ready member of standard weight without zone and address.
    pub fn new(id: impl Into<String>) -> Member {
        Member {
            id: id.into(),
            weight: STANDARD_WEIGHT,
            zone: String::new(),
            state: State::Ready,
            address: None,
        }
    }
}

/// One set of members, from which the owners of every key follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The epoch at which it was published. A file written by hand may leave it out, which means the document's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_epoch: Option<u64>,
    /// Who is in it.
    pub members: Vec<Member>,
}

impl Placement {
    /// The member of this id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// The fields as they are written, valid or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fields {
    pub(crate) epoch: u64,
    pub(crate) hash: String,
    pub(crate) replicas: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) generations: BTreeMap<String, u64>,
    pub(crate) current: Placement,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Placement>,
}

/// A valid ring document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Document(Fields);

impl Document {
    /// The first document of a cluster: epoch 1, one placement.
    ///
    /// # Errors
    /// [`Error::Invalid`] names everything that is wrong with it.
    pub fn first(replicas: u32, members: Vec<Member>) -> Result<Document> {
        let fields = Fields {
            epoch: 1,
            hash: HASH.to_owned(),
            replicas,
            generations: BTreeMap::new(),
            current: Placement {
                published_epoch: Some(1),
                members,
            },
            previous: None,
        };
        Document::checked(fields).map_err(Error::Invalid)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`Error::Syntax`] and [`Error::Invalid`].
    pub fn parse(json: &str) -> Result<Document> {
        let fields = serde_json::from_str(json).map_err(Error::Syntax)?;
        Document::checked(fields).map_err(Error::Invalid)
    }

    /// Reads a file of the JSON form.
    ///
    /// # Errors
    /// Those of [`Document::parse`], [`Error::Io`] and [`Error::TooLarge`].
    pub fn read(path: &Path) -> Result<Document> {
        let failed = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let mut json = String::new();
        let mut limited = File::open(path).map_err(failed)?.take(LIMIT_BYTES + 1);
        limited.read_to_string(&mut json).map_err(failed)?;
        if json.len() as u64 > LIMIT_BYTES {
            return Err(Error::TooLarge {
                path: path.to_owned(),
                limit: LIMIT_BYTES,
            });
        }
        Document::parse(&json)
    }

    /// The JSON form, for people too.
    ///
    /// # Errors
    /// [`Error::Syntax`], which no valid document gives.
    pub fn to_json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(&self.0).map_err(Error::Syntax)?;
        Ok(json + "\n")
    }

    /// The document of these fields, members in the order of their ids.
    pub(crate) fn checked(mut fields: Fields) -> Result<Document, Problems> {
        let problems = problems(&fields);
        if !problems.0.is_empty() {
            return Err(problems);
        }
        let placements = [Some(&mut fields.current), fields.previous.as_mut()];
        for placement in placements.into_iter().flatten() {
            placement.members.sort_by(|a, b| a.id.cmp(&b.id));
        }
        Ok(Document(fields))
    }

    pub(crate) const fn fields(&self) -> &Fields {
        &self.0
    }

    /// Its number, which only grows.
    pub const fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// The epoch at which the current placement was published; changes of states come after it.
    pub fn published_epoch(&self) -> u64 {
        self.0.current.published_epoch.unwrap_or(self.0.epoch)
    }

    /// Copies wanted per item, R.
    pub const fn replicas(&self) -> u32 {
        self.0.replicas
    }

    /// The placement that writes count in.
    pub const fn current(&self) -> &Placement {
        &self.0.current
    }

    /// The placement before it, while it is open.
    pub const fn previous(&self) -> Option<&Placement> {
        self.0.previous.as_ref()
    }

    /// How often the namespace was purged. Part of the hash of its entries' keys.
    pub fn generation(&self, namespace: &Namespace) -> u64 {
        let raised = self.0.generations.get(namespace.as_str());
        raised.copied().unwrap_or(0)
    }

    /// Every namespace that was ever purged, with its generation.
    pub const fn generations(&self) -> &BTreeMap<String, u64> {
        &self.0.generations
    }

    /// Every member of either placement once, by id; the current placement has the say.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let previous = self
            .0
            .previous
            .iter()
            .flat_map(|placement| &placement.members);
        let all = previous.chain(&self.0.current.members);
        let by_id: BTreeMap<&str, &Member> =
            all.map(|member| (member.id.as_str(), member)).collect();
        by_id.into_values()
    }

    /// Who keeps the previous placement open: each member that did not report, at or after the epoch at which the
    /// current one was published, that it pushed what it no longer owns. `reports` has the `syncedEpoch` by id.
    pub fn waiting_for<'a>(&'a self, reports: &BTreeMap<String, u64>) -> Vec<&'a str> {
        if self.0.previous.is_none() {
            return Vec::new();
        }
        let published = self.published_epoch();
        let has_reported = |id: &str| reports.get(id).is_some_and(|epoch| *epoch >= published);
        self.members()
            .filter(|member| !member.state.is_gone() && !has_reported(&member.id))
            .map(|member| member.id.as_str())
            .collect()
    }
}
