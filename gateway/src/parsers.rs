//! Every parser of what strangers send, with what must hold for any input: the targets of `gateway/fuzz`, which the
//! test below also runs over the committed corpora.
//!
//! Not part of the interface. A target panics when a rule is broken; it never panics because the input is bad.

use std::io::Read;

use bytes::Bytes;
use zimcache_proto::{
    Message, json,
    reapi::{self, ActionResult},
};
use zimcache_store::ByteRange;
use zimcache_types::{EntryKey, Function, Hash, Namespace};

use crate::{
    action, client_address,
    frames::Unpacking,
    multistatus,
    protocol::{
        actions_cache::{names, parse_content_range},
        bazel_http, builder, ccache, metro, nx,
        polykit::{self, tar::Archive},
        reapi::names::Name,
        turborepo, webdav, zim_objects,
    },
    request,
};

/// A fuzz target: name and body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 17] = [
    ("bazel_http_path", bazel_http_path),
    ("ccache_path", ccache_path),
    ("actions_cache", actions_cache),
    ("artifact_path", artifact_path),
    ("polykit_archive", polykit_archive),
    ("range", range),
    ("if_none_match", if_none_match),
    ("action_result", action_result),
    ("tree", tree),
    ("nx_hash", nx_hash),
    ("turborepo_team", turborepo_team),
    ("turborepo_query", turborepo_query),
    ("webdav_path", webdav_path),
    ("action_json", action_json),
    ("forwarded_for", forwarded_for),
    ("resource_name", resource_name),
    ("frames", frames),
];

/// A path that Bazel HTTP takes names a legal namespace and hash, or is refused.
pub fn bazel_http_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = request::collapse_slashes(&text);
    assert_eq!(request::collapse_slashes(&path), path);
    let Some(bazel_http::Route::Value { instance, key, .. }) = bazel_http::routes(&path) else {
        return;
    };
    if let Ok(namespace) = Namespace::new(instance) {
        assert!(
            !namespace
                .as_str()
                .split('/')
                .any(|part| part == ".." || part.is_empty())
        );
        assert!(!instance.starts_with("ccache/"));
    }
    if let Ok(hash) = Hash::parse_untyped(key) {
        assert_eq!(hash.to_hex(), key);
    }
}

/// A path that ccache's dialect takes gives a key of one of three lengths, and a flat path gives itself.
pub fn ccache_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = request::collapse_slashes(&text);
    let Some(route) = ccache::routes(&path) else {
        return;
    };
    let Ok(key) = ccache::parse_key(route) else {
        return;
    };
    assert!(matches!(key.len(), 33 | 40 | 64));
    assert!(key.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'v')));
    let flat = format!("/ccache/{key}");
    let again = ccache::routes(&flat).map(ccache::parse_key);
    match again {
        Some(Ok(again)) => assert_eq!(again, key),
        _ => assert_eq!(key.len(), 64),
    }
}

/// Names of entries, uploads and blocks read back as they are written, a block list gives what it says in its order, and
/// a range of bytes is one.
pub fn actions_cache(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = names::Name::parse(&text) {
        assert_eq!(name.text(), text);
        assert!(!name.version.contains('/') && !name.key.contains([',', '\0', '\n']));
        assert!(name.reservation().len() <= EntryKey::MAX_LEN);
    }
    if let Ok(id) = names::UploadId::parse(&text) {
        assert_eq!(id.as_str(), text);
        assert!(!text.contains('/') && *id.blocks() < *names::RESERVATIONS);
    }
    if let Ok(blocks) = names::parse_block_list(&text, 3) {
        assert!(blocks.len() <= 3);
        assert!(blocks.iter().all(|block| names::check_block(block).is_ok()));
        let list = blocks.join("</Latest><Latest>");
        let list = format!("<BlockList><Latest>{list}</Latest></BlockList>");
        let again = names::parse_block_list(&list, 3);
        assert!(blocks.is_empty() || again.is_ok_and(|again| again == blocks));
    }
    if let Some((first, last)) = parse_content_range(&text) {
        assert!(first <= last && text.starts_with("bytes "));
    }
}

/// The name of an object or artifact is the last part of its path, and every connection that begins with a request for
/// one of Builder's artifacts is known as its client's.
pub fn artifact_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = request::collapse_slashes(&text);
    let last = path.rsplit('/').next().unwrap_or_default();
    if let Some(Ok(hash)) = zim_objects::routes(&path).map(zim_objects::parse_hash) {
        assert_eq!(hash.to_hex(), last);
    }
    if let Some(Ok(key)) = builder::routes(&path).map(builder::parse_key) {
        assert_eq!(key, last);
        assert!(key.is_ascii() && (1..=256).contains(&key.len()));
        let request = format!("GET {path} HTTP/1.1\r\n");
        assert!(builder::is_its_client(request.as_bytes()));
    }
    builder::is_its_client(data);
    if let Some(Ok(key)) = polykit::routes(&path).map(polykit::parse_key) {
        assert_eq!(key, last);
        assert!(key.len() >= 32 && key.bytes().all(|c| c.is_ascii_hexdigit()));
    }
    if let Some(metro::Route::Artifact(key)) = metro::routes(&path) {
        assert!(metro::parse_key(key).is_err() || key == last);
    }
    if let Ok((offset, limit)) = metro::parse_page(&text) {
        assert!(offset <= 100_000 && (1..=1_000).contains(&limit));
    }
}

/// An archive gives no more than was in it, under names that stay in their folder; and nothing that is no archive of an
/// artifact passes as one.
pub fn polykit_archive(data: &[u8]) {
    let mut archive = Archive::new(data);
    let (mut bytes, mut content) = (0, Vec::new());
    while let Ok(Some(member)) = archive.next() {
        assert!(!member.name.starts_with('/') && !member.name.split('/').any(|part| part == ".."));
        content.clear();
        if archive.read_to_end(&mut content).is_err() {
            break;
        }
        bytes += content.len();
    }
    assert!(bytes <= data.len());
    let key = "0".repeat(32);
    assert!(polykit::verify::verify(data, &key, 1 << 20).is_err());
}

/// A range that resolves is what slicing byte by byte would give.
pub fn range(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let range = request::parse_range(&text);
    for size in [0_u64, 1, 10, 100] {
        let wanted = |position: u64| match range {
            ByteRange::Full => true,
            ByteRange::From { first, last } => {
                position >= first && last.is_none_or(|last| position <= last)
            }
            ByteRange::Suffix(length) => size - position <= length,
        };
        let naive: Vec<u64> = (0..size).filter(|position| wanted(*position)).collect();
        match range.resolve(size) {
            Ok(resolved) => assert_eq!(resolved.collect::<Vec<_>>(), naive),
            Err(_) => assert!(naive.is_empty()),
        }
    }
}

/// An entry of `X-Forwarded-For` that is an address reads back as itself, and is never an IPv4 address in disguise.
pub fn forwarded_for(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for entry in text.rsplit(',') {
        let Some(address) = client_address::parse_entry(entry) else {
            continue;
        };
        assert_eq!(address, address.to_canonical());
        let written = address.to_string();
        assert_eq!(client_address::parse_entry(&written), Some(address));
    }
}

/// A resource name is one of a read or of a write, and says the same when it is put together again.
pub fn resource_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (read, write) = (Name::of_read(&text), Name::of_write(&text));
    assert!(read.is_err() || write.is_err());
    let Ok(name) = read.or(write) else { return };
    let instance = Some(name.instance).filter(|instance| !instance.is_empty());
    let uploads = name.uuid.into_iter().flat_map(|uuid| ["uploads", uuid]);
    let kind: &[&str] = if name.is_zstd {
        &["compressed-blobs", "zstd"]
    } else {
        &["blobs"]
    };
    let function = name.function.map(Function::name);
    let size = name.size_bytes.to_string();
    let segments = instance.into_iter().chain(uploads);
    let segments = segments.chain(kind.iter().copied()).chain(function);
    let segments: Vec<&str> = segments.chain([name.hash, &size]).collect();
    let again = segments.join("/");
    let parsed = match name.uuid {
        Some(_) => Name::of_write(&again),
        None => Name::of_read(&again),
    };
    assert_eq!(parsed, Ok(name));
}

/// Frames unpack to the same bytes whether they come whole or in pieces, and never to more than asked for.
pub fn frames(data: &[u8]) {
    let Some((sizes, packed)) = data.split_first_chunk::<3>() else {
        return;
    };
    let size = u64::from(u16::from_le_bytes([sizes[0], sizes[1]]));
    let unpack = |each: usize| {
        let mut unpacking = Unpacking::new(size)?;
        let mut unpacked = Vec::new();
        for piece in packed.chunks(each) {
            unpacking.push(Bytes::copy_from_slice(piece)).ok()?;
            while let Some(bytes) = unpacking.next().ok()? {
                unpacked.extend(bytes);
            }
        }
        assert!(unpacked.len() as u64 <= size);
        unpacking.is_complete().then_some(unpacked)
    };
    let whole = unpack(usize::MAX);
    assert_eq!(unpack(usize::from(sizes[2]) + 1), whole);
    assert!(whole.is_none_or(|whole| whole.len() as u64 == size));
}

/// A tag that is named stays named when the list grows.
pub fn if_none_match(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let named = request::names_etag(&text, "\"7\"");
    if named && !text.contains('*') {
        assert!(text.contains("\"7\""));
        assert!(request::names_etag(&format!("\"6\", {text}"), "\"7\""));
    }
}

/// What is accepted as an action result decodes as one, and names no path outside the working directory.
pub fn action_result(data: &[u8]) {
    let encoded = Bytes::copy_from_slice(data);
    let Ok(references) = action::parse(&encoded, None) else {
        return;
    };
    let decoded = ActionResult::decode(encoded);
    assert!(decoded.is_ok(), "{decoded:?}");
    let Ok(decoded) = decoded else { return };
    assert_eq!(
        decoded.output_directories.len(),
        references.directories.len()
    );
    assert!(references.blobs.len() >= decoded.output_files.len());
    let files = decoded.output_files.iter().map(|file| &file.path);
    let links = [
        decoded.output_symlinks,
        decoded.output_file_symlinks,
        decoded.output_directory_symlinks,
    ]
    .concat();
    for path in files.chain(links.iter().map(|link| &link.path)) {
        assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."));
    }
}

/// What is accepted as a tree decodes as one, with as many files and directories.
pub fn tree(data: &[u8]) {
    let encoded = Bytes::copy_from_slice(data);
    let Ok(tree) = action::parse_tree(&encoded, None) else {
        return;
    };
    let directories: Vec<_> = tree
        .held
        .iter()
        .map(|held| reapi::Directory::decode(held.clone()))
        .collect();
    assert!(directories.iter().all(Result::is_ok));
    let files: usize = directories
        .iter()
        .flatten()
        .map(|directory| directory.files.len())
        .sum();
    assert_eq!(files, tree.files.len());
    if let Some(root) = tree.held.first() {
        assert!(action::parse_directory(root, None).is_ok());
    }
}

/// A hash of Nx is a key of legal characters, whatever the path.
pub fn nx_hash(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(Ok(hash)) = nx::routes(&text).map(nx::parse_hash) else {
        return;
    };
    assert!((1..=128).contains(&hash.len()) && !hash.contains(['/', '.', '%']));
    assert_eq!(text, format!("/v1/cache/{hash}"));
}

/// A team is a legal namespace, and the same one when it is named again.
pub fn turborepo_team(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(Some(team)) = turborepo::parse_team(&text) else {
        return;
    };
    assert!(
        team.as_str()
            .split('/')
            .all(|part| part != ".." && !part.is_empty())
    );
    let again = turborepo::parse_team(&format!("slug={team}"));
    assert_eq!(again.ok().flatten(), Some(team));
}

/// A query that is accepted is bounded.
pub fn turborepo_query(data: &[u8]) {
    if let Ok(query) = turborepo::parse_query(data) {
        assert!(query.hashes.len() <= 4096);
    }
}

/// A path of a file or folder stays below its root, and is read back from the way we write it.
pub fn webdav_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = request::collapse_slashes(&text);
    let Some(Ok(target)) = webdav::routes(&path).map(webdav::parse_target) else {
        return;
    };
    let key = match &target {
        webdav::Target::File(key) => key.as_str(),
        webdav::Target::Folder(start) if start.is_empty() => return,
        webdav::Target::Folder(start) => start.trim_end_matches('/'),
    };
    assert!(key.len() <= 1024);
    assert!(key.split('/').all(|part| !matches!(part, "" | "." | "..")));
    let slash = if matches!(target, webdav::Target::Folder(_)) {
        "/"
    } else {
        ""
    };
    let written = format!("/webdav/{}{slash}", multistatus::encoded(key));
    let again = webdav::routes(&written).map(webdav::parse_target);
    assert!(matches!(again, Some(Ok(again)) if again == target));
}

/// What is read from JSON is written as JSON that means the same.
pub fn action_json(data: &[u8]) {
    let Ok(encoded) = json::read_action_result(data) else {
        return;
    };
    let written = json::write_action_result(&encoded);
    assert!(written.is_ok(), "{written:?}");
    let Ok(written) = written else { return };
    let again = json::read_action_result(&written);
    assert_eq!(again.ok(), Some(encoded));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_committed_input_passes_its_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = corpus.join(name);
            let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    #[test]
    fn the_committed_inputs_reach_the_accepting_paths() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let accepted = |name: &str, accepts: fn(Bytes) -> bool| {
            let files = std::fs::read_dir(corpus.join(name)).unwrap();
            files
                .map(|file| Bytes::from(std::fs::read(file.unwrap().path()).unwrap()))
                .any(accepts)
        };
        assert!(accepted("action_result", |data| !data.is_empty()
            && action::parse(&data, None).is_ok()));
        assert!(accepted("tree", |data| action::parse_tree(&data, None).is_ok()));
        assert!(accepted("action_json", |data| json::read_action_result(
            &data
        )
        .is_ok()));
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_target(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (_, target) in TARGETS {
                target(&data);
            }
        }

        #[test]
        fn no_likely_path_breaks_a_target(path in "/{1,2}(ccache/|ac/|cas/|[a-z.]{1,4}/){0,4}[0-9a-v]{0,66}") {
            bazel_http_path(path.as_bytes());
            ccache_path(path.as_bytes());
        }

        #[test]
        fn no_likely_block_list_breaks_a_target(
            blocks in proptest::collection::vec("[A-D]{0,3}={0,2}", 0..4),
            tag in "(Latest|Committed|Other)",
            text in "(bytes [0-9]{0,3}-[0-9]{0,3}/[*0-9]|[a-f0-9]{6}-[a-f0-9]{14}|v/[a-c,/]{1,4})",
        ) {
            let list = blocks.join(&format!("</{tag}><{tag}>"));
            actions_cache(format!("<BlockList><{tag}>{list}</{tag}></BlockList>").as_bytes());
            actions_cache(text.as_bytes());
        }

        #[test]
        fn no_likely_artifact_breaks_a_target(path in "(/ns/a)?/(artifacts|v1/artifacts|api/v1/artifacts|api/v1/objects)/[0-9a-fA-Z._-]{0,66}") {
            artifact_path(path.as_bytes());
        }

        #[test]
        fn no_likely_header_breaks_a_target(text in "(bytes=)?[0-9,\"W/* -]{0,24}") {
            range(text.as_bytes());
            if_none_match(text.as_bytes());
        }

        #[test]
        fn a_damaged_action_result_breaks_no_target(
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
            path in "[a-z./]{0,12}",
            size_bytes in any::<i64>(),
        ) {
            let digest = reapi::Digest { hash: "ab".repeat(32), size_bytes };
            let mut encoded = ActionResult {
                output_files: vec![reapi::OutputFile { path, digest: Some(digest.clone()), ..Default::default() }],
                stdout_digest: Some(digest),
                exit_code: 7,
                ..Default::default()
            }
            .encode_to_vec();
            action_result(&encoded);
            let at = at.index(encoded.len());
            encoded[at] ^= 1 << bit;
            action_result(&encoded);
            tree(&encoded);
        }
    }
}
