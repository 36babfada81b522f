//! The text form of the file of tokens: TOML, version 1, one `[[token]]` each.
//!
//! Read with the line of every problem, and all problems at once: a cache that refuses the file shows what to mend.
//! Written by hand rather than by a serializer, so that the order and the form of every line are ours.

use std::{collections::HashSet, fmt::Display, fmt::Write as _, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zimcache_types::Timestamp;

use crate::{
    error::{Problem, Problems},
    time::{parse_rfc3339, rfc3339},
    token_file::{NOTE_LIMIT, Previous, TokenRecord, is_note},
};

/// The version written, and the only one read.
const VERSION: &str = "1";

const HEADER: &str = "\
# Tokens of this cache: only hashes are kept. Changed by `zim token create`, `rotate` and `revoke`,
# which keep no comments. Without this file, access is open to whom the anonymous policy allows.
version = 1
";

const TOP_KEYS: &[&str] = &["version", "token"];
const TOKEN_KEYS: &[&str] = &[
    "id",
    "namespace",
    "scope",
    "created",
    "expires",
    "note",
    "hash",
    "previous",
];
const PREVIOUS_KEYS: &[&str] = &["hash", "until"];

/// The text of the records.
pub(crate) fn write(records: &[TokenRecord]) -> String {
    let mut text = HEADER.to_owned();
    for record in records {
        // Writing to a String cannot fail.
        write_record(&mut text, record).ok();
    }
    text
}

fn write_record(text: &mut String, record: &TokenRecord) -> std::fmt::Result {
    writeln!(text, "\n[[token]]")?;
    writeln!(text, "id = \"{}\"", record.id)?;
    writeln!(text, "namespace = \"{}\"", record.namespace)?;
    writeln!(text, "scope = \"{}\"", record.scope)?;
    writeln!(text, "created = {}", rfc3339(record.created))?;
    if let Some(expires) = record.expires {
        writeln!(text, "expires = {}", rfc3339(expires))?;
    }
    if !record.note.is_empty() {
        writeln!(text, "note = {}", quoted(&record.note))?;
    }
    writeln!(text, "hash = \"{}\"", record.hash)?;
    if let Some(Previous { hash, until }) = &record.previous {
        let until = rfc3339(*until);
        writeln!(text, "previous = {{ hash = \"{hash}\", until = {until} }}")?;
    }
    Ok(())
}

/// A line of text as a basic string of TOML.
fn quoted(line: &str) -> String {
    format!("\"{}\"", line.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The records of the text.
///
/// # Errors
/// Everything that is wrong.
pub(crate) fn read(text: &str) -> Result<Vec<TokenRecord>, Problems> {
    let mut found = Found {
        text,
        problems: Vec::new(),
    };
    let records = match DeTable::parse(text) {
        Ok(table) => read_file(table.get_ref(), &mut found),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            found.report(at, None, error.message().to_owned());
            Vec::new()
        }
    };
    if found.problems.is_empty() {
        return Ok(records);
    }
    found.problems.sort_by_key(|problem| problem.line);
    Err(Problems(found.problems))
}

fn read_file(table: &DeTable<'_>, found: &mut Found<'_>) -> Vec<TokenRecord> {
    let version = table.get("version");
    match version.map(|version| (version.span().start, version.get_ref())) {
        Some((_, DeValue::Integer(number))) if number.as_str() == VERSION => {}
        Some((at, _)) => {
            let text = format!("this version is not known; version = {VERSION} is");
            found.report(at, None, text);
            return Vec::new();
        }
        None => {
            let text = format!("there is no version; the file has to say version = {VERSION}");
            found.report(0, None, text);
            return Vec::new();
        }
    }
    found.unknown_keys(table, TOP_KEYS, None);
    let Some(tokens) = table.get("token") else {
        return Vec::new();
    };
    let Some(tokens) = tokens.get_ref().as_array() else {
        found.report(tokens.span().start, None, "write [[token]]".to_owned());
        return Vec::new();
    };
    let mut seen = Seen::default();
    let records = tokens
        .iter()
        .filter_map(|token| read_token(token, found, &mut seen));
    records.collect()
}

/// What may occur once only.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    hashes: HashSet<String>,
}

fn read_token(
    token: &Spanned<DeValue<'_>>,
    found: &mut Found<'_>,
    seen: &mut Seen,
) -> Option<TokenRecord> {
    let at = token.span().start;
    let Some(table) = token.get_ref().as_table() else {
        found.report(at, None, "write [[token]]".to_owned());
        return None;
    };
    let id = table.get("id").and_then(|id| id.get_ref().as_str());
    let name = id.map(|id| format!("token {id}"));
    found.unknown_keys(table, TOKEN_KEYS, name.as_deref());
    let mut fields = Fields {
        table,
        at,
        name,
        found,
    };
    fields.only_once("id", &mut seen.ids);
    fields.only_once("hash", &mut seen.hashes);
    let previous = fields.previous(&mut seen.hashes);
    // Every field is looked at before the first missing one ends the record, so that all problems are told.
    let (id, hash) = (fields.parsed("id"), fields.parsed("hash"));
    let (namespace, scope) = (fields.parsed("namespace"), fields.parsed("scope"));
    let (created, expires) = (fields.time("created"), fields.optional_time("expires"));
    let note = fields.note();
    Some(TokenRecord {
        id: id?,
        hash: hash?,
        namespace: namespace?,
        scope: scope?,
        created: created?,
        expires,
        note,
        previous,
    })
}

/// The problems so far, and the text they lie in.
#[derive(Debug)]
struct Found<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn report(&mut self, at: usize, name: Option<&str>, text: String) {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        self.problems.push(Problem {
            line,
            name: name.map(str::to_owned),
            text,
        });
    }

    fn unknown_keys(&mut self, table: &DeTable<'_>, known: &[&str], name: Option<&str>) {
        for key in table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let text = format!(
                    "{} is not known; accepted: {}",
                    key.get_ref(),
                    known.join(", ")
                );
                self.report(key.span().start, name, text);
            }
        }
    }
}

/// The fields of one token, or of its previous secret.
#[derive(Debug)]
struct Fields<'a, 'i, 't> {
    table: &'a DeTable<'i>,
    at: usize,
    name: Option<String>,
    found: &'a mut Found<'t>,
}

impl<'a, 'i> Fields<'a, 'i, '_> {
    fn report(&mut self, at: usize, text: String) {
        self.found.report(at, self.name.as_deref(), text);
    }

    /// A field that has to be there.
    fn required(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        let value = self.table.get(key);
        if value.is_none() {
            self.report(self.at, format!("there is no {key}"));
        }
        value
    }

    /// A text that has to be there and to be read as a `T`.
    fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let value = self.required(key)?;
        let text = value.get_ref().as_str();
        let parsed = text.map(|text| text.parse::<T>().map_err(|error| error.to_string()));
        match parsed.unwrap_or_else(|| Err("a text in quotes is wanted".to_owned())) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.report(value.span().start, format!("{key}: {error}"));
                None
            }
        }
    }

    fn time(&mut self, key: &str) -> Option<Timestamp> {
        let value = self.required(key)?;
        let time = match value.get_ref() {
            DeValue::Datetime(time) => parse_rfc3339(&time.to_string()),
            _ => None,
        };
        if time.is_none() {
            let text = format!("{key}: a time in UTC is wanted, such as 2026-11-21T08:00:00Z");
            self.report(value.span().start, text);
        }
        time
    }

    fn optional_time(&mut self, key: &str) -> Option<Timestamp> {
        self.table.get(key)?;
        self.time(key)
    }

    fn note(&mut self) -> String {
        let Some(value) = self.table.get("note") else {
            return String::new();
        };
        match value.get_ref().as_str() {
            Some(note) if is_note(note) => note.to_owned(),
            _ => {
                let text = format!("note: one line of at most {NOTE_LIMIT} characters is wanted");
                self.report(value.span().start, text);
                String::new()
            }
        }
    }

    fn previous(&mut self, seen_hashes: &mut HashSet<String>) -> Option<Previous> {
        let value = self.table.get("previous")?;
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            let text = "previous: write previous = { hash = \"sha256:…\", until = … }".to_owned();
            self.report(at, text);
            return None;
        };
        let name = self.name.clone();
        self.found
            .unknown_keys(table, PREVIOUS_KEYS, name.as_deref());
        let found = &mut *self.found;
        let mut fields = Fields {
            table,
            at,
            name,
            found,
        };
        fields.only_once("hash", seen_hashes);
        let (hash, until) = (fields.parsed("hash"), fields.time("until"));
        Some(Previous {
            hash: hash?,
            until: until?,
        })
    }

    /// Complains about a text that another token has, too.
    fn only_once(&mut self, key: &str, seen: &mut HashSet<String>) {
        let Some(value) = self.table.get(key) else {
            return;
        };
        let Some(text) = value.get_ref().as_str() else {
            return;
        };
        if !seen.insert(text.to_owned()) {
            let text = format!("{key}: {text} occurs twice in this file");
            self.report(value.span().start, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::btree_map,
        option,
        prelude::{Strategy, any, prop_assert_eq, proptest},
    };

    use super::*;
    use crate::{Scope, TokenHash, time::to_second};

    fn told(text: &str) -> Vec<String> {
        let problems = read(text).unwrap_err();
        problems.0.iter().map(ToString::to_string).collect()
    }

    fn hash(secret: &str) -> TokenHash {
        TokenHash::of(secret.as_bytes())
    }

    #[test]
    fn a_file_without_tokens_is_fine() {
        assert_eq!(read("version = 1"), Ok(Vec::new()));
        assert_eq!(read(&write(&[])), Ok(Vec::new()));
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        for text in ["version = 2\nnew = 1", "version = \"1\"", "[[token]]", ""] {
            let told = told(text);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("line 1: ") && told[0].contains("version = 1"));
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let told = told("version = 1\n\n[[token]\n");
        assert!(told[0].starts_with("line 3: "), "{told:?}");
    }

    #[test]
    fn every_problem_is_told_with_line_and_token() {
        let text = format!(
            "version = 1\n\
             extra = true\n\
             [[token]]\n\
             id = \"ci\"\n\
             namespace = \"a/*/b\"\n\
             scope = \"owner\"\n\
             created = 2026-11-21\n\
             expires = \"tomorrow\"\n\
             note = 5\n\
             hash = \"{}\"\n\
             previous = {{ hash = \"md5:0\", since = 1 }}\n\
             [[token]]\n\
             id = \"ci\"\n\
             hash = \"{}\"\n\
             sope = \"read\"\n\
             previous = 7\n\
             [[token]]\n\
             id = 6\n",
            hash("a"),
            hash("a"),
        );
        let told = told(&text);
        let expected = [
            "line 2: extra is not known",
            "line 5: token ci: namespace: ",
            "line 6: token ci: scope: ",
            "line 7: token ci: created: ",
            "line 8: token ci: expires: ",
            "line 9: token ci: note: ",
            "line 11: token ci: since is not known",
            "line 11: token ci: hash: ",
            "line 11: token ci: there is no until",
            "line 12: token ci: there is no namespace",
            "line 12: token ci: there is no scope",
            "line 12: token ci: there is no created",
            "line 13: token ci: id: ci occurs twice",
            "line 14: token ci: hash: ",
            "line 15: token ci: sope is not known",
            "line 16: token ci: previous: ",
            "line 17: there is no hash",
            "line 17: there is no namespace",
            "line 17: there is no scope",
            "line 17: there is no created",
            "line 18: id: ",
        ];
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told:?} is not {expected:?}");
        }
        assert_eq!(told.len(), expected.len(), "{told:#?}");
    }

    #[test]
    fn tokens_of_another_shape_are_refused() {
        for text in ["token = 1", "[token]\nid = \"a\"", "token = [1]"] {
            let told = told(&format!("version = 1\n{text}"));
            assert_eq!(told, ["line 2: write [[token]]"]);
        }
    }

    #[test]
    fn a_hash_may_not_be_the_former_one_of_another_token() {
        let token = |id: &str| {
            let hash = hash(id);
            format!(
                "[[token]]\nid = \"{id}\"\nnamespace = \"*\"\nscope = \"read\"\n\
                 created = 2026-11-21T08:00:00Z\nhash = \"{hash}\"\n"
            )
        };
        let former = hash("a");
        let until = "until = 2026-11-21T09:00:00Z";
        let text = format!(
            "version = 1\n{}{}previous = {{ hash = \"{former}\", {until} }}\n",
            token("a"),
            token("b")
        );
        let told = told(&text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("occurs twice"), "{told:?}");
    }

    #[test]
    fn a_problem_does_not_repeat_what_stands_where_a_hash_should() {
        let text = "version = 1\n[[token]]\nid = \"a\"\nhash = \"zim_secret\"\n";
        assert!(!told(text).join("\n").contains("zim_secret"));
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        // 1970 to 9999, whole seconds or not.
        (0..253_402_300_799_000_u64, any::<bool>()).prop_map(|(millis, whole)| {
            let time = Timestamp(millis);
            if whole { to_second(time) } else { time }
        })
    }

    /// Records with these numbers as ids and hashes, so that all differ.
    fn records() -> impl Strategy<Value = Vec<TokenRecord>> {
        let namespace = "[a-z]{1,8}(/[a-z]{1,3})?(/\\*)?|\\*";
        let fields = (
            namespace,
            0_usize..3,
            time(),
            option::of(time()),
            "[^\\p{Cc}]{0,200}",
            option::of(time()),
        );
        btree_map(any::<u32>(), fields, 0..6).prop_map(|numbered| {
            let record = |(number, fields): (u32, (String, usize, _, _, String, Option<_>))| {
                let (namespace, scope, created, expires, note, until) = fields;
                TokenRecord {
                    id: format!("t-{number}").parse().unwrap(),
                    hash: hash(&format!("new {number}")),
                    namespace: namespace.parse().unwrap(),
                    scope: Scope::ALL[scope],
                    created,
                    expires,
                    note,
                    previous: until.map(|until| Previous {
                        hash: hash(&format!("old {number}")),
                        until,
                    }),
                }
            };
            numbered.into_iter().map(record).collect()
        })
    }

    proptest! {
        #[test]
        fn records_read_back_as_written(records in records()) {
            let text = write(&records);
            prop_assert_eq!(read(&text), Ok(records));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(version = 1\n)?(\\[\\[token\\]\\]\n)?\\PC{0,80}") {
            if let Err(problems) = read(&text) {
                assert!(!problems.0.is_empty());
            }
        }
    }
}
