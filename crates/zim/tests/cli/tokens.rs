//! `zim token`: what goes where, what the file holds afterwards, and how mistakes are told.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use tempfile::TempDir;
use zimcache_auth::{Authenticator, Outcome, Refusal, Sources, TokenFile};
use zimcache_types::{Clock as _, SystemClock};

use crate::process::{Ended, ended, run, zim};

/// A file of tokens in a folder that goes with the test.
struct Tokens {
    _folder: TempDir,
    path: PathBuf,
}

impl Tokens {
    fn new() -> Tokens {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        Tokens {
            _folder: folder,
            path,
        }
    }

    fn run(&self, words: &[&str]) -> Ended {
        let file = self.path.to_str().unwrap();
        ended(zim(&["token"]).args(words).args(["--file", file]))
    }

    /// Makes one and returns its secret.
    fn create(&self, words: &[&str]) -> String {
        let made = self.run(&[&["create"], words].concat());
        assert_eq!(made.code, 0, "{}", made.err);
        made.out.trim_end().to_owned()
    }

    /// The name of the principal that a secret shows to a server with this file.
    fn whose(&self, secret: &str) -> Result<String, Refusal> {
        let authenticator = Authenticator::new(Sources {
            tokens: TokenFile::load(&self.path).unwrap(),
            ..Sources::default()
        });
        let value = format!("Bearer {secret}");
        match authenticator.check(Some(value.as_bytes()), SystemClock.now()) {
            Outcome::Known(principal) => Ok(principal.name().to_string()),
            Outcome::Refused(refusal) => Err(refusal),
            other @ Outcome::Slow(_) => panic!("{other:?}"),
        }
    }
}

/// The id inside a secret.
fn id_of(secret: &str) -> &str {
    secret.split('_').nth(1).unwrap()
}

const TEAM: [&str; 4] = ["--namespace", "team", "--scope", "write"];

#[test]
fn only_the_secret_goes_to_standard_output_and_only_its_hash_to_the_file() {
    let tokens = Tokens::new();
    let made = tokens.run(&[
        "create",
        "--namespace",
        "team/*",
        "--scope",
        "write",
        "--note",
        "ci",
    ]);
    assert_eq!(made.code, 0, "{}", made.err);
    let secret = made.out.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("zim_") && secret.len() == 56, "{secret}");
    assert!(
        made.err.contains("write in team/*, for ever"),
        "{}",
        made.err
    );
    assert!(!made.err.contains(secret), "{}", made.err);
    let file = fs::read_to_string(&tokens.path).unwrap();
    assert!(!file.contains(&secret[13..]), "{file}");
    assert!(file.contains("note = \"ci\""), "{file}");
    let mode = fs::metadata(&tokens.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(tokens.whose(secret), Ok(id_of(secret).to_owned()));
}

#[test]
fn the_list_shows_every_token_and_no_secret() {
    let tokens = Tokens::new();
    let one = tokens.create(&[&TEAM[..], &["--expires", "90d"]].concat());
    let two = tokens.create(&["--namespace", "*", "--scope", "admin", "--note", "for Ada"]);
    let listed = tokens.run(&["list"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    let lines: Vec<&str> = listed.out.lines().collect();
    assert!(lines[0].starts_with("ID "), "{}", listed.out);
    assert!(lines[1].starts_with(id_of(&one)) && lines[1].contains("  write  "));
    assert!(lines[2].starts_with(id_of(&two)) && lines[2].ends_with("  for Ada"));
    for secret in [&one, &two] {
        assert!(!listed.out.contains(&secret[13..]), "{}", listed.out);
    }
}

#[test]
fn programs_get_json() {
    let tokens = Tokens::new();
    let json = |words: &[&str]| {
        let told = tokens.run(&[words, &["--json"]].concat());
        assert_eq!((told.code, &*told.err), (0, ""));
        serde_json::from_str::<serde_json::Value>(&told.out).unwrap()
    };
    assert_eq!(json(&["list"]), serde_json::json!([]));
    let made = json(&[&["create"], &TEAM[..], &["--expires", "1h"]].concat());
    let secret = made["token"].as_str().unwrap();
    let id = made["id"].as_str().unwrap();
    assert_eq!(id, id_of(secret));
    assert_eq!(
        (&made["namespace"], &made["scope"]),
        (&"team".into(), &"write".into())
    );
    let listed = json(&["list"]);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["expired"]),
        (&made["id"], &false.into())
    );
    assert_eq!(listed[0].get("token"), None);
    let rotated = json(&["rotate", id]);
    assert_ne!(rotated["token"], made["token"]);
    assert!(rotated["previous_until"].is_string(), "{rotated}");
    assert_eq!(json(&["revoke", id])["id"], made["id"]);
    assert_eq!(json(&["list"]), serde_json::json!([]));
}

#[test]
fn a_rotated_token_keeps_its_id_and_its_old_secret_for_the_time_of_grace() {
    let tokens = Tokens::new();
    let old = tokens.create(&TEAM);
    let id = id_of(&old).to_owned();
    let told = tokens.run(&["rotate", &id, "--grace", "1h"]);
    assert_eq!(told.code, 0, "{}", told.err);
    let new = told.out.trim_end().to_owned();
    assert!(
        told.err.contains("the secret that it had is good until"),
        "{}",
        told.err
    );
    assert_eq!(tokens.whose(&old), Ok(id.clone()));
    assert_eq!(tokens.whose(&new), Ok(id.clone()));
    let newest = tokens.run(&["rotate", &id, "--grace", "0"]);
    assert!(!newest.err.contains("good until"), "{}", newest.err);
    for gone in [&old, &new] {
        assert_eq!(tokens.whose(gone), Err(Refusal::Unknown));
    }
    assert_eq!(tokens.whose(newest.out.trim_end()), Ok(id));
}

#[test]
fn a_revoked_token_is_refused_even_when_it_was_the_last() {
    let tokens = Tokens::new();
    let secret = tokens.create(&TEAM);
    let told = tokens.run(&["revoke", id_of(&secret)]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.out.starts_with("revoked "), "{}", told.out);
    assert_eq!(tokens.whose(&secret), Err(Refusal::Unknown));
    let listed = tokens.run(&["list"]);
    assert_eq!((listed.code, &*listed.out), (0, ""));
    assert!(
        listed.err.contains("there are no tokens in"),
        "{}",
        listed.err
    );
}

#[test]
fn an_unknown_id_is_told_with_those_there_are() {
    let tokens = Tokens::new();
    let secret = tokens.create(&TEAM);
    for words in [["revoke", "nope"], ["rotate", "nope"]] {
        let told = tokens.run(&words);
        assert_eq!(told.code, 1);
        let expected = format!(
            "no token has the id \"nope\"; there are: {}",
            id_of(&secret)
        );
        assert!(told.err.contains(&expected), "{}", told.err);
        assert_eq!(told.out, "");
    }
}

#[test]
fn what_cannot_be_done_as_written_ends_with_2_and_says_what_can() {
    let tokens = Tokens::new();
    for (words, expected) in [
        (
            [
                "--namespace",
                "a/../b",
                "--scope",
                "read",
                "--expires",
                "1d",
            ],
            "team-a/*",
        ),
        (
            ["--namespace", "a", "--scope", "owner", "--expires", "1d"],
            "read, write, admin",
        ),
        (
            ["--namespace", "a", "--scope", "read", "--expires", "soon"],
            "such as 10s",
        ),
        (
            ["--namespace", "a", "--scope", "read", "--expires", "0"],
            "live longer",
        ),
        (
            ["--namespace", "a", "--scope", "read", "--note", "a\nb"],
            "one line",
        ),
    ] {
        let told = tokens.run(&[&["create"], &words[..]].concat());
        assert_eq!(told.code, 2, "{words:?}");
        assert!(told.err.contains(expected), "{}", told.err);
    }
    assert!(!tokens.path.exists());
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let tokens = Tokens::new();
    tokens.create(&TEAM);
    let below = tokens.path.join("deeper.toml");
    let words = ["token", "create", "--file", below.to_str().unwrap()];
    let told = run(&[&words[..], &TEAM[..]].concat());
    assert_eq!((told.code, &*told.out), (1, ""));
    assert!(
        told.err.contains(tokens.path.to_str().unwrap()),
        "{}",
        told.err
    );
}

#[test]
fn a_broken_file_is_told_line_by_line_and_left_alone() {
    let tokens = Tokens::new();
    let broken = "version = 1\n[[token]]\nid = \"ci\"\nscope = \"owner\"\n";
    fs::write(&tokens.path, broken).unwrap();
    for words in [
        &["list"][..],
        &["revoke", "ci"],
        &[&["create"], &TEAM[..]].concat(),
    ] {
        let told = tokens.run(words);
        assert_eq!(told.code, 2, "{}", told.err);
        assert!(
            told.err.contains("line 4: token ci: scope: "),
            "{}",
            told.err
        );
    }
    assert_eq!(fs::read_to_string(&tokens.path).unwrap(), broken);
}

#[test]
fn the_file_is_named_by_flag_then_variable_then_the_users_folder() {
    let tokens = Tokens::new();
    let home = tempfile::tempdir().unwrap();
    let create = |variables: &[(&str, &str)]| {
        let mut command = zim(&["token", "create"]);
        command.args(TEAM).env("HOME", home.path());
        let told = ended(command.envs(variables.iter().copied()));
        assert_eq!(told.code, 0, "{}", told.err);
    };
    create(&[]);
    let default = home.path().join(".config/zimcache/tokens.toml");
    assert_eq!(TokenFile::load(&default).unwrap().unwrap().list().len(), 1);
    create(&[("ZIMCACHE_TOKENS", tokens.path.to_str().unwrap())]);
    assert_eq!(
        TokenFile::load(&tokens.path).unwrap().unwrap().list().len(),
        1
    );
    assert_eq!(TokenFile::load(&default).unwrap().unwrap().list().len(), 1);
    let told = ended(zim(&["token", "list"]).env_remove("HOME"));
    assert_eq!(told.code, 2);
    assert!(told.err.contains("--file PATH"), "{}", told.err);
}

#[test]
fn every_command_has_examples() {
    assert!(run(&["token", "--help"]).out.contains("Examples:"));
    for command in ["create", "list", "revoke", "rotate"] {
        let help = run(&["token", command, "--help"]).out;
        assert!(help.contains(&format!("  zim token {command}")), "{help}");
    }
}
