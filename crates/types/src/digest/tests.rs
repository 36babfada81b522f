//! What every function answers for known bodies, and that streaming changes nothing.

use proptest::prelude::*;

use super::*;

#[test]
fn known_vectors_of_every_function() {
    let abc = [
        (
            Function::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (Function::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Function::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (
            Function::Sha384,
            concat!(
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed",
                "8086072ba1e7cc2358baeca134c825a7",
            ),
        ),
        (
            Function::Sha512,
            concat!(
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a",
                "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ),
        (
            Function::Sha256Tree,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Function::Blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
        (
            Function::GitSha1,
            "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f",
        ),
    ];
    assert_eq!(abc.map(|(function, _)| function), Function::ALL);
    for (function, hex) in abc {
        assert_eq!(Digest::of(function, b"abc").hash.to_hex(), hex);
        assert_eq!(Hash::parse(function, hex).unwrap().to_hex(), hex);
    }
}

#[test]
fn gitsha1_is_the_name_that_git_gives() {
    let digest = Digest::of(Function::GitSha1, b"hello\n");
    let hello = "ce013625030ba8dba906f756967f9e9ca394464a";
    assert_eq!(digest.hash.to_hex(), hello);
    let empty = Digest::of(Function::GitSha1, b"");
    let nothing = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    assert_eq!(empty.hash.to_hex(), nothing);
}

#[test]
fn gitsha1_starts_only_with_the_size() {
    let digest = Digest::of(Function::GitSha1, b"hello");
    assert!(Hasher::for_digest(&Digest::unsized_(digest.hash)).is_none());
    assert!(Hasher::sized(Function::GitSha1, None).is_none());
    let mut hasher = Hasher::for_digest(&digest).unwrap();
    hasher.update(b"hello");
    assert_eq!(hasher.finish(), digest.hash);
    for function in Function::ALL {
        let empty = Digest::unsized_(Digest::of(function, b"").hash);
        assert_eq!(Hasher::for_digest(&empty).unwrap().finish(), empty.hash);
    }
}

#[test]
fn names_numbers_and_lengths_tell_the_function() {
    for function in Function::ALL {
        assert_eq!(Function::from_name(function.name()), Some(function));
        assert_eq!(Function::from_number(function.number()), Some(function));
        let named = matches!(
            function,
            Function::Sha256Tree | Function::Blake3 | Function::GitSha1
        );
        assert_eq!(function.needs_segment(), named);
        let bare = Function::by_hex_len(function.hash_len() * 2).contains(&function);
        assert!(bare || named, "{function} cannot be named");
        assert!(function.readings().contains(&function));
        let lengths = function.readings().iter().map(|other| other.hash_len());
        assert!(lengths.eq(function.readings().iter().map(|_| function.hash_len())));
    }
    for number in [0, 4, 7, 11] {
        assert_eq!(Function::from_number(number), None);
    }
    assert_eq!(Function::from_name("SHA256"), None);
}

#[test]
fn a_bare_hash_is_never_of_a_function_that_has_to_be_named() {
    assert_eq!(
        Function::by_hex_len(64),
        [Function::Sha256, Function::Blake3]
    );
    assert_eq!(Function::by_hex_len(40), [Function::Sha1]);
    let md5 = Digest::of(Function::Md5, b"abc").hash;
    assert_eq!(
        Hash::parse_untyped(&md5.to_hex()),
        Err(DigestError::Length(32))
    );
    assert_eq!(Hash::parse(Function::Md5, &md5.to_hex()), Ok(md5));
}

#[test]
fn upper_case_short_and_foreign_text_is_refused() {
    let hex = Digest::of(Function::Sha256, b"abc").hash.to_hex();
    assert_eq!(
        Hash::parse_untyped(&hex.to_uppercase()),
        Err(DigestError::NotHex)
    );
    assert_eq!(Hash::parse_untyped(&hex[1..]), Err(DigestError::Length(63)));
    assert_eq!(
        Hash::parse_untyped(&hex.replace('b', "/")),
        Err(DigestError::NotHex)
    );
    let refusal = Hash::parse(Function::GitSha1, &hex).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "hash has 64 hex digits, gitsha1 has 40"
    );
}

#[test]
fn the_empty_blob_is_known_in_every_function() {
    for function in Function::ALL {
        assert!(Digest::of(function, b"").is_empty_blob());
        assert!(!Digest::of(function, b"x").is_empty_blob());
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_hash_to_the_same(
        body in prop::collection::vec(any::<u8>(), 0..20_000),
        pieces in prop::collection::vec(1..3_000usize, 1..20),
    ) {
        for function in Function::ALL {
            let digest = Digest::of(function, &body);
            let mut hasher = Hasher::for_digest(&digest).unwrap();
            let (mut rest, mut sizes) = (&body[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                hasher.update(piece);
                rest = behind;
            }
            prop_assert_eq!(hasher.finish(), digest.hash);
        }
    }
}
