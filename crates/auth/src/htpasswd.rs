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

/// The user is not known, or the password is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongPassword;

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
            let wrong = match read_line(line, path) {
                Ok(None) => continue,
                Ok(Some(entry)) => add(&mut users, &entry, grant).err(),
                Err(wrong) => Some(wrong),
            };
            problems.extend(wrong.map(|wrong| Problem {
                line: number,
                name: wrong.user.map(|user| format!("user {user}")),
                text: wrong.text,
            }));
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

    /// What is remembered of this user with this password; `None` when bcrypt has to say.
    pub(crate) fn remembered(
        &self,
        user: &[u8],
        password: &[u8],
        now: Timestamp,
    ) -> Option<Result<Principal, WrongPassword>> {
        let pair = self.pair(user, password);
        if self.good.get(&pair).is_some() {
            return Some(self.principal(user));
        }
        self.is_wrong(&pair, now).then_some(Err(WrongPassword))
    }

    /// Asks bcrypt, unless somebody else asks the same now: then waits for that answer.
    pub(crate) fn verify(
        &self,
        user: &[u8],
        password: &[u8],
        now: Timestamp,
    ) -> Result<Principal, WrongPassword> {
        let pair = self.pair(user, password);
        let ask = || {
            // Somebody may have asked while this call waited for its turn.
            if self.is_wrong(&pair, now) {
                return Err(WrongPassword);
            }
            if self.is_password(user, password) {
                return Ok(());
            }
            self.wrong.insert(pair, now.plus(WRONG_FOR));
            Err(WrongPassword)
        };
        self.good.get_or_insert_with(&pair, ask)?;
        self.principal(user)
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

    fn principal(&self, user: &[u8]) -> Result<Principal, WrongPassword> {
        let user = self.users.get(user).ok_or(WrongPassword)?;
        Ok(user.principal.clone())
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

/// A line that says something.
struct Entry<'a> {
    user: &'a str,
    hash: &'a str,
}

/// What is wrong with a line, and whose it is where that is known.
struct Wrong<'a> {
    user: Option<&'a str>,
    text: String,
}

fn add<'a>(
    users: &mut HashMap<Vec<u8>, User>,
    entry: &Entry<'a>,
    grant: &Grant,
) -> Result<(), Wrong<'a>> {
    if users.contains_key(entry.user.as_bytes()) {
        return Err(Wrong {
            user: Some(entry.user),
            text: "this user occurs twice".to_owned(),
        });
    }
    let user = User {
        hash: entry.hash.to_owned(),
        principal: Principal::known(entry.user, Identity::Htpasswd, grant.clone()),
    };
    users.insert(entry.user.into(), user);
    Ok(())
}

/// What a line says; nothing when it is blank or a comment.
fn read_line<'a>(line: &'a str, path: &Path) -> Result<Option<Entry<'a>>, Wrong<'a>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let refuse = |user, text| Err(Wrong { user, text });
    let Some((user, hash)) = line.split_once(':') else {
        return refuse(None, "a line is USER:HASH".to_owned());
    };
    if !(1..=USER_LIMIT_BYTES).contains(&user.len()) || user.contains(char::is_control) {
        let text = format!("a user name has 1 to {USER_LIMIT_BYTES} bytes");
        return refuse(None, text);
    }
    // Apache ignores what follows a second colon.
    let hash = hash.split(':').next().unwrap_or_default();
    match check_hash(hash) {
        Ok(()) => Ok(Some(Entry { user, hash })),
        Err(wrong) => {
            let path = path.display();
            let text = format!("{wrong}; make a good one with: htpasswd -B {path} {user}");
            refuse(Some(user), text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    /// What `htpasswd -nbBC 4 ada swordfish` of Apache 2.4 printed, after the name of the algorithm.
    const HASH: &str = "04$u7TIhmJnJU2YXbp1471zLOE/vDpru6TousbhIYx/J5U7pn/Pd3fI.";

    const NOW: Timestamp = Timestamp(1_000_000);

    fn grant() -> Grant {
        Grant {
            namespace: "team/*".parse().unwrap(),
            scope: Scope::Write,
        }
    }

    fn htpasswd(text: &str) -> Result<Htpasswd> {
        Htpasswd::read(text, Path::new("users"), &grant())
    }

    fn told(text: &str) -> String {
        htpasswd(text).unwrap_err().to_string()
    }

    #[test]
    fn the_three_names_of_bcrypt_are_taken() {
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let users = htpasswd(&format!("ada:{kind}{HASH}\n")).unwrap();
            let ada = users.verify(b"ada", b"swordfish", NOW).unwrap();
            assert_eq!(&**ada.name(), "ada");
            assert_eq!(ada.identity(), Identity::Htpasswd);
            assert_eq!(
                (ada.scope(), ada.pattern()),
                (Some(Scope::Write), &grant().namespace)
            );
        }
    }

    #[test]
    fn blanks_comments_and_further_fields_are_skipped() {
        let text = format!("# users\r\n\r\n  ada:$2y${HASH}:Ada Lovelace\r\nbob:$2y${HASH}");
        let users = htpasswd(&text).unwrap();
        assert_eq!((users.len(), users.is_empty()), (2, false));
        assert!(users.verify(b"ada", b"swordfish", NOW).is_ok());
        assert!(htpasswd("").unwrap().is_empty());
    }

    #[test]
    fn wrong_passwords_and_unknown_users_are_refused() {
        let users = htpasswd(&format!("ada:$2y${HASH}")).unwrap();
        for (user, password) in [
            ("ada", "swordfisH"),
            ("ada", ""),
            ("bob", "swordfish"),
            ("", "swordfish"),
        ] {
            assert!(
                users
                    .verify(user.as_bytes(), password.as_bytes(), NOW)
                    .is_err()
            );
        }
        let nobody = htpasswd("").unwrap();
        assert!(nobody.verify(b"ada", b"swordfish", NOW).is_err());
    }

    #[test]
    fn other_hashes_are_refused_with_line_and_command() {
        let damaged = &HASH[..HASH.len() - 1];
        let text = format!(
            "ada:$2y${HASH}\n\
             bob:$apr1$8sFt66rZ$bI0DVGO1kJ2NlNDxI7Vh40\n\
             cyd:{{SHA}}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n\
             dan:$2y${damaged}\n\
             eve:$2y$17{}\n\
             fay:$2x${HASH}\n\
             nobody\n\
             :$2y${HASH}\n\
             ada:$2y${HASH}\n",
            &HASH[2..]
        );
        let told = told(&text);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 9, "{told}");
        assert_eq!(lines[0], "users cannot be used:");
        for (line, parts) in lines[1..].iter().zip([
            ["line 2: user bob: ", "htpasswd -B users bob"],
            ["line 3: user cyd: ", "htpasswd -B users cyd"],
            ["line 4: user dan: ", "damaged"],
            ["line 5: user eve: ", "above 16"],
            ["line 6: user fay: ", "htpasswd -B users fay"],
            ["line 7: ", "USER:HASH"],
            ["line 8: ", "user name"],
            ["line 9: user ada: ", "twice"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
        assert!(!told.contains(HASH) && !told.contains("qUqP5"), "{told}");
    }

    #[test]
    fn a_good_password_is_remembered_until_the_file_is_read_again() {
        let text = format!("ada:$2y${HASH}");
        let users = htpasswd(&text).unwrap();
        assert_eq!(users.remembered(b"ada", b"swordfish", NOW), None);
        let ada = users.verify(b"ada", b"swordfish", NOW);
        let later = NOW.plus(Duration::from_hours(24));
        assert_eq!(users.remembered(b"ada", b"swordfish", later), Some(ada));
        assert_eq!(users.remembered(b"ada", b"swordfisH", later), None);
        let again = htpasswd(&text).unwrap();
        assert_eq!(again.remembered(b"ada", b"swordfish", NOW), None);
    }

    #[test]
    fn a_wrong_password_is_remembered_for_a_short_time() {
        let users = htpasswd(&format!("ada:$2y${HASH}")).unwrap();
        users.verify(b"ada", b"guess", NOW).unwrap_err();
        assert_eq!(
            users.remembered(b"ada", b"guess", NOW),
            Some(Err(WrongPassword))
        );
        let over = NOW.plus(WRONG_FOR);
        assert_eq!(users.remembered(b"ada", b"guess", over), None);
    }

    #[test]
    fn guesses_do_not_push_out_good_passwords() {
        let users = htpasswd(&format!("ada:$2y${HASH}")).unwrap();
        users.verify(b"ada", b"swordfish", NOW).unwrap();
        for guess in 0..2 * REMEMBERED {
            let pair = users.pair(b"ada", &guess.to_le_bytes());
            users.wrong.insert(pair, NOW.plus(WRONG_FOR));
        }
        assert!(users.wrong.len() <= REMEMBERED);
        assert!(users.remembered(b"ada", b"swordfish", NOW).is_some());
    }

    #[test]
    fn the_decoy_costs_as_much_as_the_dearest_user() {
        let text = format!("ada:$2y${HASH}\nbob:$2y$05{}", &HASH[2..]);
        let users = htpasswd(&text).unwrap();
        assert!(users.decoy.unwrap().starts_with("$2y$05$"));
    }
}
