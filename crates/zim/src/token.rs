//! `zim token`: makes, shows, takes away and renews the tokens in a file.
//!
//! Works on the file alone, with or without a server; a running one watches it. A secret goes to standard output and
//! nothing else does, so that a script can catch it; what people want to know goes to standard error.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;
use zimcache_auth::{Grant, Token, TokenFile, TokenRecord, TokenSpec, rfc3339};
use zimcache_config::Environment;
use zimcache_types::{Clock as _, SystemClock, Timestamp};

use crate::{
    args::{CreateTokenArgs, RevokeTokenArgs, RotateTokenArgs, TokenCommand, TokenFileArgs},
    error::{Error, Result},
    output,
};

/// Names the file where no flag does.
const FILE_VARIABLE: &str = "ZIMCACHE_TOKENS";

/// Runs it.
pub(crate) fn run(command: &TokenCommand) -> Result<ExitCode> {
    match command {
        TokenCommand::Create(args) => create(args),
        TokenCommand::List(args) => list(args),
        TokenCommand::Revoke(args) => revoke(args),
        TokenCommand::Rotate(args) => rotate(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateTokenArgs) -> Result<()> {
    let path = path_of(&args.target)?;
    let spec = TokenSpec {
        grant: Grant {
            namespace: args.namespace.clone(),
            scope: args.scope,
        },
        lifetime: args.expires,
        note: args.note.clone(),
    };
    let (token, record) = TokenFile::update(&path, |file| file.create(spec, &SystemClock))?;
    hand_over(&token, &record, &path, args.target.json)
}

fn rotate(args: &RotateTokenArgs) -> Result<()> {
    let path = path_of(&args.target)?;
    let change = |file: &mut TokenFile| file.rotate(&args.id, args.grace, &SystemClock);
    let (token, record) = TokenFile::update(&path, change)?;
    hand_over(&token, &record, &path, args.target.json)
}

fn revoke(args: &RevokeTokenArgs) -> Result<()> {
    let path = path_of(&args.target)?;
    let record = TokenFile::update(&path, |file| file.revoke(&args.id))?;
    if args.target.json {
        return output::print_json(&Shown::of(&record, SystemClock.now()));
    }
    output::print(&format!("revoked {}\n", describe(&record)))
}

fn list(args: &TokenFileArgs) -> Result<()> {
    let path = path_of(args)?;
    let file = TokenFile::load(&path)?;
    let now = SystemClock.now();
    let records = file.as_ref().map(TokenFile::list).unwrap_or_default();
    if args.json {
        let shown: Vec<Shown> = records
            .iter()
            .map(|record| Shown::of(record, now))
            .collect();
        return output::print_json(&shown);
    }
    if records.is_empty() {
        output::tell(&format!("there are no tokens in {}", path.display()));
        return Ok(());
    }
    output::print(&columns(records, now))
}

/// The flag's file, else the variable's, else the one in the user's configuration folder.
fn path_of(args: &TokenFileArgs) -> Result<PathBuf> {
    let environment = Environment::of_process();
    let named = args.file.clone();
    let named = named.or_else(|| environment.get(FILE_VARIABLE).map(PathBuf::from));
    let path = named.or_else(|| environment.default_tokens());
    path.ok_or(Error::NoTokenFile)
}

/// Shows a secret for the only time.
fn hand_over(token: &Token, record: &TokenRecord, path: &Path, json: bool) -> Result<()> {
    if json {
        return output::print_json(&Handed {
            token: token.expose(),
            file: path,
            record: Shown::of(record, SystemClock.now()),
        });
    }
    output::tell(&format!("token {}", describe(record)));
    if let Some(previous) = record.previous {
        let until = rfc3339(previous.until);
        output::tell(&format!("the secret that it had is good until {until}"));
    }
    let path = path.display();
    output::tell(&format!(
        "its hash is in {path}; the secret is shown this once:"
    ));
    output::print(&format!("{}\n", token.expose()))
}

/// One line about a token.
fn describe(record: &TokenRecord) -> String {
    let until = match record.expires {
        Some(expires) => format!("until {}", rfc3339(expires)),
        None => "for ever".to_owned(),
    };
    let TokenRecord {
        id,
        scope,
        namespace,
        ..
    } = record;
    format!("{id}: {scope} in {namespace}, {until}")
}

/// A token as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    namespace: String,
    scope: &'static str,
    created: String,
    expires: Option<String>,
    expired: bool,
    /// Until when the secret before the last rotation is good.
    previous_until: Option<String>,
    note: &'a str,
}

impl<'a> Shown<'a> {
    fn of(record: &'a TokenRecord, now: Timestamp) -> Shown<'a> {
        let previous = record.previous.filter(|previous| now < previous.until);
        Shown {
            id: record.id.as_str(),
            namespace: record.namespace.to_string(),
            scope: record.scope.as_str(),
            created: rfc3339(record.created),
            expires: record.expires.map(rfc3339),
            expired: record.is_expired(now),
            previous_until: previous.map(|previous| rfc3339(previous.until)),
            note: &record.note,
        }
    }
}

/// A new secret as JSON, with its token.
#[derive(Debug, Serialize)]
struct Handed<'a> {
    token: &'a str,
    file: &'a Path,
    #[serde(flatten)]
    record: Shown<'a>,
}

/// The tokens as rows under a heading, every column as wide as its widest cell.
fn columns(records: &[TokenRecord], now: Timestamp) -> String {
    let heading = ["ID", "NAMESPACE", "SCOPE", "CREATED", "EXPIRES", "NOTE"].map(str::to_owned);
    let row = |record: &TokenRecord| {
        let expires = match record.expires {
            Some(_) if record.is_expired(now) => "expired".to_owned(),
            Some(expires) => rfc3339(expires),
            None => "never".to_owned(),
        };
        [
            record.id.to_string(),
            record.namespace.to_string(),
            record.scope.to_string(),
            rfc3339(record.created),
            expires,
            record.note.clone(),
        ]
    };
    let rows: Vec<[String; 6]> = [heading]
        .into_iter()
        .chain(records.iter().map(row))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].chars().count()).max();
            format!("{cell:width$}", width = width.unwrap_or(0))
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.extend([line.trim_end(), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zimcache_auth::Scope;
    use zimcache_types::ManualClock;

    use super::*;

    const START: Timestamp = Timestamp(1_795_248_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn file() -> TokenFile {
        let mut file = TokenFile::default();
        for (namespace, lifetime, note) in [("team-a/*", Some(DAY), "näin"), ("*", None, "")] {
            let grant = Grant {
                namespace: namespace.parse().unwrap(),
                scope: Scope::Write,
            };
            let spec = TokenSpec {
                grant,
                lifetime,
                note: note.to_owned(),
            };
            file.create(spec, &ManualClock::new(START)).unwrap();
        }
        file
    }

    #[test]
    fn cells_stand_in_columns() {
        let text = columns(file().list(), START);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines[0].find("NAMESPACE").unwrap();
        assert!(lines[1][at..].starts_with("team-a/*   write  2026-11-21T08:00:00Z  2026-11-22T"));
        assert!(lines[1].ends_with("Z  näin"));
        assert!(lines[2][at..].starts_with("*          write  "));
        assert!(lines[2].ends_with("  never"));
    }

    #[test]
    fn what_has_expired_is_marked() {
        let file = file();
        let text = columns(file.list(), START.plus(DAY));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("  expired  "), "{text}");
        assert!(!lines[2].contains("expired"), "{text}");
        let expired = |now| Shown::of(&file.list()[0], now).expired;
        assert!(!expired(START) && expired(START.plus(DAY)));
    }

    #[test]
    fn a_former_secret_is_shown_while_it_is_good() {
        let mut file = file();
        let id = file.list()[0].id.to_string();
        let clock = ManualClock::new(START);
        let (_, record) = file.rotate(&id, DAY / 2, &clock).unwrap();
        let until = |now| Shown::of(&record, now).previous_until;
        assert_eq!(until(START).as_deref(), Some("2026-11-21T20:00:00Z"));
        assert_eq!(until(START.plus(DAY / 2)), None);
    }
}
