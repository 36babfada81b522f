//! What a document may say, and what is answered to one that says something else.

use proptest::prelude::*;
use zimcache_ring::{Document, Error, Member, State};
use zimcache_types::Code;

use crate::harness::{any_cluster, document};

/// A whole document around the members of the current placement.
fn with_members(members: &str) -> String {
    format!(r#"{{"epoch":1,"hash":"v1","replicas":2,"current":{{"members":[{members}]}}}}"#)
}

fn refusal(json: &str) -> String {
    let error = Document::parse(json).expect_err(json);
    assert_eq!(error.code(), Code::Invalid);
    match error {
        Error::Syntax(source) => source.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn a_list_of_ids_is_enough_by_hand() {
    let document = Document::parse(&with_members(r#"{"id":"b"},{"id":"a"}"#)).unwrap();
    assert_eq!(document.published_epoch(), 1);
    let expected = [Member::new("a"), Member::new("b")];
    assert_eq!(document.current().members, expected);
}

#[test]
fn every_contradiction_is_named() {
    let head = |epoch: &str, hash: &str, replicas: &str| {
        format!(
            r#"{{"epoch":{epoch},"hash":"{hash}","replicas":{replicas},"current":{{"members":[{{"id":"a"}}]}}}}"#
        )
    };
    let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(254));
    let cases = [
        (head("0", "v1", "2"), "the epoch is 0"),
        (
            head("9007199254740993", "v1", "2"),
            "the epoch is 9007199254740993",
        ),
        (head("-1", "v1", "2"), "invalid value: integer `-1`"),
        (
            head("1", "v2", "2"),
            r#"the hash "v2" is not known; this version knows "v1""#,
        ),
        (
            head("1", "v1", "0"),
            "replicas is 0; it is a number from 1 to 8",
        ),
        (head("1", "v1", "9"), "replicas is 9"),
        (with_members(""), "current has no members"),
        (with_members(r#"{"id":""}"#), r#"member id """#),
        (with_members(r#"{"id":"a#1"}"#), r#"member id "a#1""#),
        (with_members(&long), "an id is 1 to 253 characters"),
        (
            with_members(r#"{"id":"a"},{"id":"a"}"#),
            "current has two members of the id a",
        ),
        (
            with_members(r#"{"id":"a","weight":0}"#),
            "member a has the weight 0",
        ),
        (
            with_members(r#"{"id":"a","weight":10001}"#),
            "member a has the weight 10001",
        ),
        (
            with_members(r#"{"id":"a","zone":"b c"}"#),
            r#"member a has the zone "b c""#,
        ),
        (
            with_members(r#"{"id":"a","state":"gone"}"#),
            "unknown variant `gone`",
        ),
        (
            with_members(r#"{"id":"a","state":"drained"}"#),
            "member a is drained in current",
        ),
        (
            with_members(r#"{"id":"a","size":1}"#),
            "unknown field `size`",
        ),
        (
            with_members(r#"{"id":"a","address":"http://x:1"},{"id":"b","address":"http://x:1"}"#),
            "members a and b have the same address http://x:1",
        ),
        ("{}".to_owned(), "missing field `epoch`"),
        (String::new(), "EOF while parsing"),
    ];
    for (json, expected) in cases {
        let told = refusal(&json);
        assert!(told.contains(expected), "{json}\n{told}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let told = refusal(
        r#"{"epoch":0,"hash":"x","replicas":0,"generations":{"a//b":1},"current":{"members":[]}}"#,
    );
    for part in [
        "epoch is 0",
        "hash \"x\"",
        "replicas is 0",
        "\"a//b\"",
        "no members",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn addresses_are_a_scheme_a_host_and_a_port() {
    let address = |text: &str| with_members(&format!(r#"{{"id":"a","address":"{text}"}}"#));
    for good in [
        "http://127.0.0.1:1",
        "https://node-0.zimcache:4711",
        "https://[::1]:65535",
    ] {
        Document::parse(&address(good)).unwrap();
    }
    let bad = [
        "",
        "node:1",
        "ftp://a:1",
        "http://a",
        "http://a:0",
        "http://a:65536",
        "http://:1",
        "http://a:1/",
        "http://u@a:1",
        "http://[::1:1",
        "http://a b:1",
    ];
    for bad in bad {
        assert!(
            refusal(&address(bad)).contains("member a has the address"),
            "{bad}"
        );
    }
}

/// What `previous` may not say beside a current placement, published at 3, of a and b.
#[test]
fn two_placements_have_to_agree() {
    let both = |published: &str, members: &str| {
        format!(
            r#"{{"epoch":4,"hash":"v1","replicas":1,"current":{{"published_epoch":3,"members":[{{"id":"a"}},{{"id":"b","state":"joining"}}]}},"previous":{{"published_epoch":{published},"members":[{members}]}}}}"#
        )
    };
    Document::parse(&both("2", r#"{"id":"a"},{"id":"c","state":"drained"}"#)).unwrap();
    let cases = [
        (
            both("3", r#"{"id":"a"}"#),
            "published epochs are out of order",
        ),
        (
            both("0", r#"{"id":"a"}"#),
            "published epochs are out of order",
        ),
        (both("2", ""), "previous has no members"),
        (
            both("2", r#"{"id":"a","state":"lost"}"#),
            "member a has two states",
        ),
        (
            both("2", r#"{"id":"a","address":"http://x:1"}"#),
            "member a has two addresses",
        ),
    ];
    for (json, expected) in cases {
        assert!(
            refusal(&json).contains(expected),
            "{json}\n{}",
            refusal(&json)
        );
    }
}

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.json");
    let missing = Document::read(&path).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert!(missing.to_string().contains("ring.json"));
    let written = document(2, vec![Member::new("a")]);
    std::fs::write(&path, written.to_json().unwrap()).unwrap();
    assert_eq!(Document::read(&path).unwrap(), written);
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    assert!(matches!(Document::read(&path), Err(Error::TooLarge { .. })));
}

#[test]
fn more_than_a_table_holds_is_refused() {
    let heavy = |n: u32| Member {
        weight: 10_000,
        ..Member::new(format!("n{n}"))
    };
    assert!(Document::first(1, (0..100).map(heavy).collect()).is_ok());
    let told = Document::first(1, (0..101).map(heavy).collect()).unwrap_err();
    assert!(told.to_string().contains("total weight 1010000"), "{told}");
}

proptest! {
    #[test]
    fn what_is_written_is_read_again((replicas, members) in any_cluster()) {
        let written = document(replicas, members);
        prop_assert_eq!(Document::parse(&written.to_json().unwrap()).unwrap(), written);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in r#"[{}\[\]",:a-z0-9]{0,200}"#) {
        let _ = Document::parse(&text);
    }
}

#[test]
fn words_of_states_are_those_of_the_document() {
    for state in [
        State::Joining,
        State::Ready,
        State::Draining,
        State::Drained,
        State::Lost,
    ] {
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            format!("{:?}", state.as_str())
        );
    }
}
