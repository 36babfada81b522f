//! The file of tokens on disk: the form that released versions wrote, and changes that succeed, fail or meet.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its fixtures too"
)]

use std::{fs, path::PathBuf, thread, time::Duration};

use tempfile::TempDir;
use zimcache_auth::{
    Authenticator, Error, Grant, Outcome, Refusal, Scope, Sources, Token, TokenFile, TokenRecord,
    TokenSpec,
};
use zimcache_types::{Code, ManualClock, Timestamp};

/// Written with version 1 and never changed since. The secrets of its first token are `NEW` and `OLD`, that of the
/// second is `abc`.
const GOLDEN: &str = include_str!("golden/tokens.toml");
const NEW: &str = "zim_k7q2mfzx_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
const OLD: &str = "zim_k7q2mfzx_AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
/// When the golden file's first token was created.
const CREATED: Timestamp = Timestamp(1_795_248_000_000);

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.toml");
    (folder, path)
}

fn create(file: &mut TokenFile) -> Result<(Token, TokenRecord), Error> {
    let spec = TokenSpec {
        grant: Grant {
            namespace: "team".parse().unwrap(),
            scope: Scope::Read,
        },
        lifetime: None,
        note: String::new(),
    };
    file.create(spec, &ManualClock::new(CREATED))
}

#[test]
fn the_golden_file_is_read_and_written_as_it_is() {
    let file = TokenFile::parse(GOLDEN).unwrap();
    assert_eq!(file.to_text(), GOLDEN);
    let [ci, by_hand] = file.list() else {
        panic!("{file:?}")
    };
    assert_eq!(ci.note, r#"the "nightly" build, C:\ci"#);
    assert_eq!((ci.created, ci.scope), (CREATED, Scope::Write));
    let lifetime = ci.expires.unwrap().since(ci.created);
    assert_eq!(lifetime, Duration::from_hours(90 * 24));
    assert_eq!((by_hand.id.as_str(), by_hand.expires), ("by-hand", None));
}

#[test]
fn the_secrets_of_the_golden_file_are_known() {
    let tokens = TokenFile::parse(GOLDEN).unwrap();
    let authenticator = Authenticator::new(Sources {
        tokens: Some(tokens),
        ..Sources::default()
    });
    let name = |secret: &str, now| {
        let value = format!("Bearer {secret}");
        match authenticator.check(Some(value.as_bytes()), now) {
            Outcome::Known(principal) => Ok(principal.name().to_string()),
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Slow(_) => panic!("a token never takes long"),
        }
    };
    let graced = CREATED.plus(Duration::from_hours(1));
    let over = graced.plus(Duration::from_millis(500));
    assert_eq!(name(NEW, over), Ok("k7q2mfzx".to_owned()));
    assert_eq!(name(OLD, graced), Ok("k7q2mfzx".to_owned()));
    assert_eq!(name(OLD, over), Err(Refusal::Expired));
    assert_eq!(name("abc", over), Ok("by-hand".to_owned()));
    assert_eq!(name("abcd", over), Err(Refusal::Unknown));
}

#[test]
fn a_file_that_is_not_there_is_made_by_the_first_change() {
    let (_folder, path) = place();
    assert_eq!(TokenFile::load(&path).unwrap(), None);
    let (_, record) = TokenFile::update(&path, create).unwrap();
    let file = TokenFile::load(&path).unwrap().unwrap();
    assert_eq!(file.list(), [record]);
    assert_eq!(fs::read_to_string(&path).unwrap(), file.to_text());
}

#[test]
fn a_change_that_fails_leaves_the_file_as_it_is() {
    let (_folder, path) = place();
    let revoke = |file: &mut TokenFile| file.revoke("nope");
    let refused = TokenFile::update(&path, revoke).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(!path.exists());
    TokenFile::update(&path, create).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(TokenFile::update(&path, revoke).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_cannot_be_used_is_told_with_its_path_and_never_overwritten() {
    let (_folder, path) = place();
    fs::write(&path, "version = 1\n[[token]]\nid = \"a\"\n").unwrap();
    for refused in [
        TokenFile::load(&path).unwrap_err(),
        TokenFile::update(&path, create).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::Invalid);
        let told = refused.to_string();
        assert!(told.contains("tokens.toml cannot be used"), "{told}");
        assert!(told.contains("line 2: token a: there is no hash"), "{told}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

#[test]
fn changes_that_meet_are_all_kept() {
    let (_folder, path) = place();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    TokenFile::update(&path, create).unwrap();
                }
            });
        }
    });
    let file = TokenFile::load(&path).unwrap().unwrap();
    assert_eq!(file.list().len(), 20);
}
