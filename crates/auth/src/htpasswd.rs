//! Users of an Apache htpasswd file, with bcrypt hashes only.
//!
//! Bcrypt is slow on purpose, tens to hundreds of milliseconds: a good password is remembered for as long as the file
//! is, so that only a user's first request pays, and a wrong one for a short time, so that a client with an old
//! password costs little. What is remembered is a hash under a random key of this process, never the password, in two
//! tables of fixed size: guesses cannot push good ones out. Reloading makes new tables.

use std::{collections::HashMap, fmt, path::Path, time::Duration};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use zimcache_types::Timestamp;

use crate::{
    Grant, Identity, Principal,
    error::{Error, Problem, Problems, Result},
    replace,
    token::random,
};

/// How many passwords of each kind are remembered.
const REMEMBERED: usize = 4096;
/// How long a wrong password is remembered.
const WRONG_FOR: Duration = Duration::from_secs(30);
/// The costs taken: 2^4 to 2^16 rounds. Each step doubles the time; the highest takes some seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
/// `$2y$10$`, 22 characters of salt, 31 of hash.
const HASH_BYTES: usize = 60;
/// Where the cost stands.
const COST_AT: std::ops::Range<usize> = 4..6;
/// Longest user name, as Apache's.
const USER_LIMIT_BYTES: usize = 255;

/// What is kept of a pair of user and password.
type Remembered = [u8; 32];

/// The users of a file.
pub struct Htpasswd {
    users: HashMap<Vec<u8>, User>,
    /// A hash of the highest cost in the file, for users that are not in it: they must not be told apart by time.
    decoy: Option<String>,
    key: [u8; 32],
    good: Cache<Remembered, ()>,
    wrong: Cache<Remembered, Timestamp>,
}

struct User {
    hash: String,
    principal: Principal,
}

impl Htpasswd {
    /// Reads the file; `None` when there is none. All its users may do what is granted.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(path: &Path, grant: &Grant) -> Result<Option<Htpasswd>> {
        match replace::read(path)? {
            Some(text) => Htpasswd::read(&text, path, grant).map(Some),
            None => Ok(None),
        }
    }

    /// The users of the text, which came from this path.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line; and when there is no randomness.
    pub fn read(text: &str, path: &Path, grant: &Grant) -> Result<Htpasswd> {
        let mut users = HashMap::new();
        let mut problems = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let entry = match read_line(line, path) {
                Ok(None) => continue,
                Ok(Some(entry)) if users.contains_key(entry.0.as_bytes()) => {
                    Err((Some(entry.0), "this user occurs twice".to_owned()))
                }
                other => other.map(Option::unwrap_or_default),
            };
            match entry {
                Ok((user, hash)) => {
                    let principal = Principal::known(user, Identity::Htpasswd, grant.clone());
                    let hash = hash.to_owned();
                    users.insert(user.into(), User { hash, principal });
                }
                Err((user, text)) => problems.push(Problem {
                    line: number,
                    name: user.map(|user| format!("user {user}")),
                    text,
                }),
            }
        }
        if problems.is_empty() {
            return Htpasswd::new(users);
        }
        Err(Error::Unusable {
            path: path.to_owned(),
            problems: Problems(problems),
        })
    }

    fn new(users: HashMap<Vec<u8>, User>) -> Result<Htpasswd> {
        let hashes = users.values().map(|user| user.hash.as_str());
        let decoy = hashes
            .max_by_key(|hash| hash.get(COST_AT))
            .map(str::to_owned);
        Ok(Htpasswd {
            users,
            decoy,
            key: random()?,
            good: Cache::new(REMEMBERED),
            wrong: Cache::new(REMEMBERED),
        })
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What is remembered of this user with this password: whether it was good; `None` when bcrypt has to say.
    pub(crate) fn remembered(
        &self,
        user: &[u8],
        password: &[u8],
        now: Timestamp,
    ) -> Option<Option<Principal>> {
        let pair = self.pair(user, password);
        if self.good.get(&pair).is_some() {
            return Some(self.principal(user));
        }
        self.is_wrong(&pair, now).then_some(None)
    }

    /// Asks bcrypt, unless somebody else asks the same now: then waits for that answer.
    pub(crate) fn verify(&self, user: &[u8], password: &[u8], now: Timestamp) -> Option<Principal> {
        let pair = self.pair(user, password);
        let ask = || {
            // Somebody may have asked while this call waited for its turn.
            if self.is_wrong(&pair, now) {
                return Err(());
            }
            if self.is_password(user, password) {
                return Ok(());
            }
            self.wrong.insert(pair, now.plus(WRONG_FOR));
            Err(())
        };
        let verdict = self.good.get_or_insert_with(&pair, ask);
        verdict.ok().and_then(|()| self.principal(user))
    }

    fn is_password(&self, user: &[u8], password: &[u8]) -> bool {
        let user = self.users.get(user);
        let hash = user.map(|user| &user.hash).or(self.decoy.as_ref());
        let fits = hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false));
        fits && user.is_some()
    }

    fn is_wrong(&self, pair: &Remembered, now: Timestamp) -> bool {
        self.wrong.get(pair).is_some_and(|until| now < until)
    }

    fn principal(&self, user: &[u8]) -> Option<Principal> {
        self.users.get(user).map(|user| user.principal.clone())
    }

    /// A user has no colon, so that the text is unambiguous.
    fn pair(&self, user: &[u8], password: &[u8]) -> Remembered {
        let mut hasher = Sha256::new();
        hasher.update(self.key);
        hasher.update(user);
        hasher.update(b":");
        hasher.update(password);
        hasher.finalize().into()
    }
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Htpasswd({} users)", self.users.len())
    }
}

/// User and hash of a line, none of a blank or a comment; else the user where it is known, and what is wrong.
#[allow(
    clippy::type_complexity,
    reason = "a private pair, taken apart where it is made"
)]
fn read_line<'a>(
    line: &'a str,
    path: &Path,
) -> Result<Option<(&'a str, &'a str)>, (Option<&'a str>, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((user, hash)) = line.split_once(':') else {
        return Err((None, "a line is USER:HASH".to_owned()));
    };
    if !(1..=USER_LIMIT_BYTES).contains(&user.len()) || user.contains(char::is_control) {
        let text = format!("a user name has 1 to {USER_LIMIT_BYTES} bytes");
        return Err((None, text));
    }
    // Apache ignores what follows a second colon.
    let hash = hash.split(':').next().unwrap_or_default();
    match check_hash(hash) {
        Ok(()) => Ok(Some((user, hash))),
        Err(wrong) => {
            let path = path.display();
            let text = format!("{wrong}; make a good one with: htpasswd -B {path} {user}");
            Err((Some(user), text))
        }
    }
}

fn check_hash(hash: &str) -> Result<(), &'static str> {
    if !["$2a$", "$2b$", "$2y$"]
        .iter()
        .any(|kind| hash.starts_with(kind))
    {
        return Err("the hash is not a bcrypt hash ($2a$, $2b$ or $2y$), and no other is taken");
    }
    let cost = hash.get(COST_AT).and_then(|cost| cost.parse().ok());
    let is_text = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    let rest = hash
        .get(COST_AT.end..)
        .and_then(|rest| rest.strip_prefix('$'));
    let whole = hash.len() == HASH_BYTES && rest.is_some_and(|rest| rest.bytes().all(is_text));
    match cost {
        Some(cost) if whole && COSTS.contains(&cost) => Ok(()),
        Some(cost) if whole && cost > *COSTS.end() => {
            Err("the cost of the hash is above 16, which takes too long at every first request")
        }
        _ => Err("the bcrypt hash is damaged"),
    }
}
