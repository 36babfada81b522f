//! `zim cache stats`, `gc` and `verify`, against a running server and on a folder.

use std::{fs, path::Path};

use serde_json::Value;

use super::process::{Ended, Folder, Server, run};

/// Blobs that no compression or deduplication makes smaller.
fn blob(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A server with ten blobs of 1 MB.
fn filled(folder: &Folder) -> Server {
    let server = Server::start(folder, &[]);
    for seed in 0..10 {
        server.put(&blob(seed, 1_000_000));
    }
    server
}

/// The folder of a stopped store with ten blobs of 1 MB.
fn filled_folder() -> Folder {
    let folder = Folder::new();
    assert_eq!(filled(&folder).stop().code(), Some(0));
    folder
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.err, "");
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn stats_of_a_server_tell_hits_and_storage() {
    let folder = Folder::new();
    let server = filled(&folder);
    let path = server.put(b"asked for");
    assert_eq!(server.request("GET", &path, b"").0, 200);
    assert_eq!(
        server
            .request("GET", &format!("/cas/{}", "0".repeat(64)), b"")
            .0,
        404
    );
    let all = server.ask(&["stats"]);
    assert_eq!(all.code, 0, "{}", all.err);
    for text in ["Hit rate", "50.0 %", "Storage", "blobs", " 11\n"] {
        assert!(all.out.contains(text), "{text}: {}", all.out);
    }
    let hits = server.ask(&["stats", "--metric", "hit-rate"]).out;
    assert!(
        hits.contains("50.0 %") && !hits.contains("Storage"),
        "{hits}"
    );
    let storage = server.ask(&["stats", "--metric", "storage"]).out;
    assert!(
        storage.contains("Storage") && !storage.contains("Hit rate"),
        "{storage}"
    );
    assert_eq!(json(&server.ask(&["stats", "--json"]))["blobs"], 11);
}

#[test]
fn stats_of_a_folder_tell_storage_alone() {
    let folder = filled_folder();
    let store = folder.store();
    let all = run(&["cache", "stats", "--storage", &store]);
    assert_eq!(all.code, 0, "{}", all.err);
    assert!(
        all.out.contains("Storage") && !all.out.contains("Hit rate"),
        "{}",
        all.out
    );
    let machine = run(&["cache", "stats", "--json", "--storage", &store]);
    assert_eq!(json(&machine)["blobs"], 10);
    let refused = run(&[
        "cache",
        "stats",
        "--metric",
        "hit-rate",
        "--storage",
        &store,
    ]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("running server"), "{}", refused.err);
}

#[test]
fn gc_of_a_server_evicts_down_to_the_target() {
    let folder = Folder::new();
    let server = filled(&folder);
    let kept = json(&server.ask(&["gc", "--json"]));
    assert_eq!(
        kept["evicted_records"], 0,
        "without a target nothing is evicted"
    );
    let report = json(&server.ask(&["gc", "--target", "5MB", "--json"]));
    assert!(
        report["before_bytes"].as_u64().unwrap() > 10_000_000,
        "{report}"
    );
    assert!(
        report["after_bytes"].as_u64().unwrap() <= 5_000_000,
        "{report}"
    );
    assert!(report["evicted_records"].as_u64().unwrap() >= 5, "{report}");
    let told = server.ask(&["gc", "--target", "0"]);
    assert_eq!(told.code, 0);
    assert!(told.out.starts_with("Freed "), "{}", told.out);
}

#[test]
fn gc_of_a_folder_evicts_down_to_the_target() {
    let folder = filled_folder();
    let store = folder.store();
    let report = json(&run(&[
        "cache",
        "gc",
        "--target",
        "5MB",
        "--json",
        "--storage",
        &store,
    ]));
    assert!(
        report["after_bytes"].as_u64().unwrap() <= 5_000_000,
        "{report}"
    );
    let stats = json(&run(&["cache", "stats", "--json", "--storage", &store]));
    assert!(stats["blobs"].as_u64().unwrap() <= 5, "{stats}");
}

#[test]
fn verify_of_a_healthy_store_ends_with_0() {
    let folder = Folder::new();
    let server = filled(&folder);
    let told = server.ask(&["verify"]);
    assert_eq!((told.code, &*told.err), (0, ""));
    assert!(told.out.contains("no damage"), "{}", told.out);
    let report = json(&server.ask(&["verify", "--json"]));
    assert_eq!(report["damaged"], 0);
    assert!(report["bytes"].as_u64().unwrap() >= 10_000_000, "{report}");
    assert_eq!(server.stop().code(), Some(0));
    let told = run(&["cache", "verify", "--storage", &folder.store()]);
    assert_eq!((told.code, &*told.err), (0, ""));
}

/// Turns one byte inside the stored copy of the blob.
fn damage(folder: &Folder, blob: &[u8]) {
    let needle = &blob[5_000..5_064];
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).position(|part| part == needle);
    let mut turned = 0;
    for file in folder.segment_files() {
        let mut bytes = fs::read(&file).unwrap();
        if let Some(position) = holds(&bytes) {
            bytes[position] ^= 1;
            overwrite(&file, &bytes);
            turned += 1;
        }
    }
    assert_eq!(turned, 1);
}

/// In place, as a failing disk would: same file, same length.
fn overwrite(file: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut open = fs::File::options().write(true).open(file).unwrap();
    open.write_all(bytes).unwrap();
}

#[test]
fn verify_of_a_damaged_store_ends_with_1_and_the_damage_is_never_served() {
    let folder = Folder::new();
    let server = filled(&folder);
    let victim = blob(77, 500_000);
    let path = server.put(&victim);
    assert_eq!(server.stop().code(), Some(0));
    damage(&folder, &victim);
    let server = Server::start(&folder, &[]);
    let told = server.ask(&["verify"]);
    assert_eq!((told.code, &*told.err), (1, ""), "{}", told.out);
    assert!(told.out.contains("1 damaged"), "{}", told.out);
    assert_eq!(server.request("GET", &path, b"").0, 404);
    let again = server.ask(&["verify"]);
    assert_eq!(again.code, 0, "the damage was dropped: {}", again.out);
}

#[test]
fn verify_of_a_damaged_folder_ends_with_1() {
    let folder = Folder::new();
    let server = filled(&folder);
    let victim = blob(78, 500_000);
    server.put(&victim);
    assert_eq!(server.stop().code(), Some(0));
    damage(&folder, &victim);
    let report = run(&["cache", "verify", "--json", "--storage", &folder.store()]);
    assert_eq!(report.code, 1);
    assert_eq!(json(&report)["damaged"], 1);
}
