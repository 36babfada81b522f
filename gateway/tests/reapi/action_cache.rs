//! `ActionCache`: what is stored, what is handed out, and what is refused.

use std::{sync::Arc, time::Duration};

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    ActionResult, Digest, Directory, DirectoryNode, ExecutedActionMetadata, FileNode,
    GetActionResultRequest, OutputDirectory, OutputFile, OutputSymlink, Tree,
    UpdateActionResultRequest,
};
use bazel_remote_apis::google::protobuf::Any;
use prost::Message;
use tonic::Code;
use zimcache_store::{BlobStore as _, ByteRange, Retention, StoreAdmin as _, memory::MemoryStore};
use zimcache_types::{Function, ManualClock, Namespace, Timestamp};

use crate::{
    clients::{FUNCTIONS, actions, bearing, details, digest_under, field, lose, raw, store},
    support::{Outcome, Server, code, digest, pattern, within},
    wire,
};

const GET: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
const UPDATE: &str = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
const SHA256: Function = Function::Sha256;

fn key() -> Digest {
    digest(b"an action that nobody has seen")
}

async fn update(server: &Server, result: ActionResult) -> Outcome<ActionResult> {
    update_under(server, Some(SHA256), result).await
}

async fn update_under(
    server: &Server,
    function: Option<Function>,
    result: ActionResult,
) -> Outcome<ActionResult> {
    let request = UpdateActionResultRequest {
        action_digest: Some(digest_under(function.unwrap_or(SHA256), b"action")),
        action_result: Some(result),
        digest_function: function.map_or(0, |function| function.number().into()),
        ..UpdateActionResultRequest::default()
    };
    let answer = within(actions(server).update_action_result(request)).await?;
    Ok(answer.into_inner())
}

async fn get(server: &Server) -> Outcome<ActionResult> {
    get_under(server, Some(SHA256), |_| {}).await
}

async fn get_under(
    server: &Server,
    function: Option<Function>,
    ask: impl FnOnce(&mut GetActionResultRequest),
) -> Outcome<ActionResult> {
    let mut request = GetActionResultRequest {
        action_digest: Some(digest_under(function.unwrap_or(SHA256), b"action")),
        digest_function: function.map_or(0, |function| function.number().into()),
        ..GetActionResultRequest::default()
    };
    ask(&mut request);
    let answer = within(actions(server).get_action_result(request)).await?;
    Ok(answer.into_inner())
}

fn file(path: &str, digest: Digest) -> OutputFile {
    OutputFile {
        path: path.to_owned(),
        digest: Some(digest),
        ..OutputFile::default()
    }
}

/// A result of one file.
fn of_file(digest: Digest) -> ActionResult {
    ActionResult {
        output_files: vec![file("out/a", digest)],
        ..ActionResult::default()
    }
}

/// With what an answer has that a stored result need not have.
fn answered(mut result: ActionResult) -> ActionResult {
    result.execution_metadata.get_or_insert_default();
    result
}

/// A result that names something of every kind, and every blob behind it: file, outputs, tree and what is in it,
/// hierarchy and what is in it.
fn of_everything(function: Function) -> (ActionResult, Vec<Vec<u8>>) {
    let of = |blob: &[u8]| digest_under(function, blob);
    let node = |name: &str, blob: &[u8]| FileNode {
        name: name.to_owned(),
        digest: Some(of(blob)),
        ..FileNode::default()
    };
    let below = |name: &str, directory: &Directory| DirectoryNode {
        name: name.to_owned(),
        digest: Some(of(&directory.encode_to_vec())),
    };
    let inner = Directory {
        files: vec![node("f", b"in a tree's child")],
        ..Directory::default()
    };
    let tree = Tree {
        root: Some(Directory {
            files: vec![node("f", b"in a tree's root")],
            directories: vec![below("d", &inner)],
            ..Directory::default()
        }),
        children: vec![inner],
    };
    let leaf = Directory {
        files: vec![node("f", b"in a directory's child")],
        ..Directory::default()
    };
    let root = Directory {
        files: vec![node("f", b"in a directory")],
        directories: vec![below("d", &leaf), below("again", &leaf)],
        ..Directory::default()
    };
    let blobs = vec![
        b"a file".to_vec(),
        b"standard output".to_vec(),
        b"standard error".to_vec(),
        tree.encode_to_vec(),
        b"in a tree's root".to_vec(),
        b"in a tree's child".to_vec(),
        root.encode_to_vec(),
        leaf.encode_to_vec(),
        b"in a directory".to_vec(),
        b"in a directory's child".to_vec(),
    ];
    let result = ActionResult {
        output_files: vec![file("a", of(&blobs[0])), file("empty", of(b""))],
        stdout_digest: Some(of(&blobs[1])),
        stderr_digest: Some(of(&blobs[2])),
        output_directories: vec![
            OutputDirectory {
                path: "tree".to_owned(),
                tree_digest: Some(of(&blobs[3])),
                ..OutputDirectory::default()
            },
            OutputDirectory {
                path: "hierarchy".to_owned(),
                root_directory_digest: Some(of(&blobs[6])),
                ..OutputDirectory::default()
            },
        ],
        exit_code: 3,
        ..ActionResult::default()
    };
    (result, blobs)
}

async fn store_all(server: &Server, function: Function, blobs: &[Vec<u8>]) {
    let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    store(server, "", function, &blobs).await;
}

#[tokio::test]
async fn a_result_that_was_never_stored_is_not_found() {
    let server = Server::start().await;
    assert_eq!(code(get(&server).await), Code::NotFound);
}

#[tokio::test]
async fn a_stored_result_comes_back() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(SHA256);
    store_all(&server, SHA256, &blobs).await;
    let stored = update(&server, result.clone()).await.unwrap();
    assert_eq!(stored, answered(result.clone()));
    assert_eq!(get(&server).await.unwrap(), answered(result));
}

#[tokio::test]
async fn the_newest_result_of_an_action_wins() {
    let server = Server::start().await;
    for exit_code in [1, 2] {
        let result = ActionResult {
            exit_code,
            ..ActionResult::default()
        };
        update(&server, result).await.unwrap();
    }
    assert_eq!(get(&server).await.unwrap().exit_code, 2);
}

/// An update of a result that is encoded already.
fn raw_update(result: &[u8]) -> Vec<u8> {
    let request = UpdateActionResultRequest {
        action_digest: Some(key()),
        ..UpdateActionResultRequest::default()
    };
    [request.encode_to_vec(), field(3, result)].concat()
}

fn raw_get() -> Vec<u8> {
    let request = GetActionResultRequest {
        action_digest: Some(key()),
        ..GetActionResultRequest::default()
    };
    request.encode_to_vec()
}

#[tokio::test]
async fn a_result_is_kept_byte_for_byte_with_fields_that_nobody_knows() {
    let server = Server::start().await;
    server.stock(b"content").await;
    let odd_file = [
        file("a", digest(b"content")).encode_to_vec(),
        field(77, b"?"),
    ]
    .concat();
    let metadata = [field(1, b"worker"), field(99, b"new")].concat();
    // Fields out of order, one of them a number that was written longer than it had to be.
    let result = [
        field(9, &metadata),
        field(2, &odd_file),
        vec![0x20, 0x83, 0x00],
        field(1000, b"whatever"),
    ]
    .concat();
    let stored = raw(&server, UPDATE, raw_update(&result)).await.unwrap();
    assert_eq!(stored, result);
    assert_eq!(raw(&server, GET, raw_get()).await.unwrap(), result);
}

#[tokio::test]
async fn auxiliary_metadata_comes_back_as_it_was() {
    let server = Server::start().await;
    let metadata = ExecutedActionMetadata {
        worker: "w".to_owned(),
        auxiliary_metadata: vec![Any {
            type_url: "type.googleapis.com/buck2.DepFile".to_owned(),
            value: pattern(1, 100_000),
        }],
        ..ExecutedActionMetadata::default()
    };
    let result = ActionResult {
        execution_metadata: Some(metadata),
        ..ActionResult::default()
    };
    update(&server, result.clone()).await.unwrap();
    assert_eq!(get(&server).await.unwrap(), result);
}

#[tokio::test]
async fn execution_metadata_is_in_every_answer_and_not_in_what_is_stored() {
    let server = Server::start().await;
    let result = [0x20, 0x07];
    let answered = [&result[..], &[0x4a, 0x00]].concat();
    let stored = raw(&server, UPDATE, raw_update(&result)).await.unwrap();
    assert_eq!(stored, answered);
    assert_eq!(raw(&server, GET, raw_get()).await.unwrap(), answered);
    let path = format!("/ac/{}", key().hash);
    assert_eq!(server.get(&path).await.body, result);
}

#[tokio::test]
async fn a_result_that_has_only_an_exit_code_is_stored() {
    let server = Server::start().await;
    let result = ActionResult {
        exit_code: 42,
        ..ActionResult::default()
    };
    update(&server, result.clone()).await.unwrap();
    assert_eq!(get(&server).await.unwrap(), answered(result));
}

#[tokio::test]
async fn output_that_is_empty_may_be_named_by_any_digest_of_nothing() {
    let server = Server::start().await;
    // Bazel names the empty blob; others leave the digest's fields out.
    for named in [digest(b""), Digest::default()] {
        let result = ActionResult {
            stdout_digest: Some(named.clone()),
            stderr_digest: Some(named),
            ..ActionResult::default()
        };
        update(&server, result.clone()).await.unwrap();
        let found = get_under(&server, Some(SHA256), |request| {
            (request.inline_stdout, request.inline_stderr) = (true, true);
        });
        assert_eq!(found.await.unwrap(), answered(result));
    }
}

#[tokio::test]
async fn an_empty_result_is_stored_and_an_absent_one_is_invalid() {
    let server = Server::start().await;
    update(&server, ActionResult::default()).await.unwrap();
    let empty = answered(ActionResult::default());
    assert_eq!(get(&server).await.unwrap(), empty);
    let request = UpdateActionResultRequest {
        action_digest: Some(key()),
        ..UpdateActionResultRequest::default()
    };
    let outcome = within(actions(&server).update_action_result(request)).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
}

/// The violations of a refusal: type and subject of each.
fn violations(status: &tonic::Status) -> Vec<(String, String)> {
    let details = details(status);
    let [(type_url, value)] = &details[..] else {
        panic!("{details:?}");
    };
    let name = "type.googleapis.com/google.rpc.PreconditionFailure";
    assert_eq!(type_url, name);
    let failure = zimcache_proto::rpc::PreconditionFailure::decode(value.as_slice()).unwrap();
    let violations = failure.violations.into_iter();
    violations.map(|one| (one.r#type, one.subject)).collect()
}

#[tokio::test]
async fn a_result_with_missing_blobs_is_refused_with_a_violation_for_each() {
    let server = Server::start().await;
    let (mut result, blobs) = of_everything(SHA256);
    // Named twice, missing once.
    result.output_files.push(file("b", digest(&blobs[0])));
    store_all(&server, SHA256, &blobs[1..5]).await;
    store_all(&server, SHA256, &blobs[6..8]).await;
    let refused = update(&server, result).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let subject = |at: usize| {
        let Digest { hash, size_bytes } = digest(&blobs[at]);
        ("MISSING".to_owned(), format!("blobs/{hash}/{size_bytes}"))
    };
    let mut expected = [0, 5, 8, 9].map(subject);
    expected.sort();
    let mut told = violations(&refused);
    told.sort();
    assert_eq!(told, expected);
    assert_eq!(code(get(&server).await), Code::NotFound, "it was stored");
}

#[tokio::test]
async fn a_missing_tree_is_a_violation_itself() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(SHA256);
    store_all(&server, SHA256, &blobs[..3]).await;
    let refused = update(&server, result).await.unwrap_err();
    let mut expected = [3, 6].map(|at: usize| {
        let Digest { hash, size_bytes } = digest(&blobs[at]);
        ("MISSING".to_owned(), format!("blobs/{hash}/{size_bytes}"))
    });
    expected.sort();
    let mut told = violations(&refused);
    told.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn violations_name_the_function_where_a_hash_does_not_tell_it() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        let named = digest_under(function, b"absent");
        let subject = match function {
            Function::Blake3 | Function::Sha256Tree | Function::GitSha1 => {
                format!("blobs/{function}/{}/6", named.hash)
            }
            _ => format!("blobs/{}/6", named.hash),
        };
        let refused = update_under(&server, Some(function), of_file(named)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{function}");
        assert_eq!(violations(&refused), [("MISSING".to_owned(), subject)]);
    }
}

#[tokio::test]
async fn a_refusal_for_very_many_missing_blobs_fits_in_eight_kilobytes_of_headers() {
    let server = Server::start().await;
    for function in [SHA256, Function::Sha512, Function::Sha256Tree] {
        let absent = |n: u32| digest_under(function, &n.to_le_bytes());
        let files = (0..5000).map(|n| file(&format!("f{n}"), absent(n)));
        let result = ActionResult {
            output_files: files.collect(),
            ..ActionResult::default()
        };
        let refused = update_under(&server, Some(function), result).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("5000"), "{}", refused.message());
        assert_eq!(violations(&refused).len(), 32);
        assert!(refused.details().len() * 4 / 3 < 7 << 10);
    }
}

#[tokio::test]
async fn a_result_that_lost_any_of_its_blobs_is_not_found() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(SHA256);
    for lost in &blobs {
        store_all(&server, SHA256, &blobs).await;
        update(&server, result.clone()).await.unwrap();
        assert!(get(&server).await.is_ok());
        lose(&server, SHA256, lost).await;
        let text = String::from_utf8_lossy(lost);
        assert_eq!(code(get(&server).await), Code::NotFound, "{text}");
    }
}

#[tokio::test]
async fn a_blob_of_another_size_than_named_is_missing() {
    let server = Server::start().await;
    server.stock(b"content").await;
    for size_bytes in [0, 6, 8] {
        let named = Digest {
            size_bytes,
            ..digest(b"content")
        };
        let refused = update(&server, of_file(named)).await;
        assert_eq!(code(refused), Code::FailedPrecondition, "{size_bytes}");
    }
    let empty = Digest {
        size_bytes: 3,
        ..digest(b"")
    };
    let refused = update(&server, of_file(empty)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
}

#[tokio::test]
async fn results_of_every_digest_function_are_checked_and_come_back() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        let (result, blobs) = of_everything(function);
        store_all(&server, function, &blobs).await;
        let stored = update_under(&server, Some(function), result.clone()).await;
        assert_eq!(stored.unwrap(), answered(result.clone()), "{function}");
        let found = get_under(&server, Some(function), |_| {}).await;
        assert_eq!(found.unwrap(), answered(result), "{function}");
        for lost in &blobs {
            lose(&server, function, lost).await;
            let found = get_under(&server, Some(function), |_| {}).await;
            assert_eq!(code(found), Code::NotFound, "{function}");
            store(&server, "", function, &[lost]).await;
        }
    }
}

#[tokio::test]
async fn a_function_that_is_named_is_the_only_one_looked_for() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(Function::Blake3);
    store_all(&server, Function::Blake3, &blobs).await;
    let refused = update_under(&server, Some(SHA256), result).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
}

#[tokio::test]
async fn results_of_blake3_are_found_although_no_function_is_named() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(Function::Blake3);
    store_all(&server, Function::Blake3, &blobs).await;
    update_under(&server, None, result.clone()).await.unwrap();
    let found = get_under(&server, None, |_| {}).await.unwrap();
    assert_eq!(found, answered(result));
    lose(&server, Function::Blake3, &blobs[5]).await;
    let found = get_under(&server, None, |_| {}).await;
    assert_eq!(code(found), Code::NotFound);
}

#[tokio::test]
async fn digests_of_another_length_than_the_functions_are_invalid() {
    let server = Server::start().await;
    let result = of_file(digest_under(Function::Sha1, b"content"));
    let refused = update_under(&server, Some(SHA256), result).await;
    assert_eq!(code(refused), Code::InvalidArgument);
}

#[tokio::test]
async fn output_paths_that_leave_the_working_directory_are_invalid() {
    let server = Server::start().await;
    let content = digest(b"content");
    server.stock(b"content").await;
    for path in [
        "/etc/passwd",
        "../up",
        "a/../../b",
        "a/..",
        "zero\0byte",
        "",
    ] {
        let result = ActionResult {
            output_files: vec![file(path, content.clone())],
            ..ActionResult::default()
        };
        let refused = update(&server, result).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{path:?}");
    }
    for path in ["/abs", "a/../../b"] {
        let link = OutputSymlink {
            path: path.to_owned(),
            target: "anywhere".to_owned(),
            ..OutputSymlink::default()
        };
        let directory = OutputDirectory {
            path: path.to_owned(),
            tree_digest: Some(content.clone()),
            ..OutputDirectory::default()
        };
        let links = [10, 11, 12].map(|number| field(number, &link.encode_to_vec()));
        for result in [links.to_vec(), vec![field(3, &directory.encode_to_vec())]].concat() {
            let refused = raw(&server, UPDATE, raw_update(&result)).await;
            assert_eq!(code(refused), Code::InvalidArgument, "{path:?}");
        }
    }
}

#[tokio::test]
async fn the_targets_of_links_are_nobodys_business() {
    let server = Server::start().await;
    let link = OutputSymlink {
        path: "bin/tool".to_owned(),
        target: "/usr/bin/../bin/tool".to_owned(),
        ..OutputSymlink::default()
    };
    let result = ActionResult {
        output_symlinks: vec![link],
        ..ActionResult::default()
    };
    update(&server, result.clone()).await.unwrap();
    assert_eq!(get(&server).await.unwrap(), answered(result));
}

#[tokio::test]
async fn results_that_name_no_proper_digests_are_invalid() {
    let server = Server::start().await;
    let digest = |hash: &str, size_bytes| Digest {
        hash: hash.to_owned(),
        size_bytes,
    };
    let good = "a".repeat(64);
    let without = OutputFile {
        path: "a".to_owned(),
        ..OutputFile::default()
    };
    let bare = OutputDirectory {
        path: "d".to_owned(),
        ..OutputDirectory::default()
    };
    for result in [
        of_file(digest(&"A".repeat(64), 1)),
        of_file(digest(&good[1..], 1)),
        of_file(digest("", 0)),
        of_file(digest(&good, -1)),
        ActionResult {
            output_files: vec![without],
            ..ActionResult::default()
        },
        ActionResult {
            output_directories: vec![bare],
            ..ActionResult::default()
        },
        ActionResult {
            stdout_digest: Some(digest("?", 1)),
            ..ActionResult::default()
        },
    ] {
        let refused = update(&server, result.clone()).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{result:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_result_are_invalid() {
    let server = Server::start().await;
    for bytes in [
        &b"\xff\xff"[..],
        b"\x12\x05ab",
        b"\x22\x01a",
        b"\x10\x01",
        b"\x4a\x01\x01",
        // Only a field that no result has.
        b"\xfa\x3e\x01a",
    ] {
        let refused = raw(&server, UPDATE, raw_update(bytes)).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{bytes:?}");
    }
    let refused = raw(&server, UPDATE, b"no message".to_vec()).await;
    assert_eq!(code(refused), Code::InvalidArgument);
}

#[tokio::test]
async fn a_tree_that_is_none_or_lacks_a_directory_is_invalid() {
    let server = Server::start().await;
    let lacking = Tree {
        root: Some(Directory {
            directories: vec![DirectoryNode {
                name: "d".to_owned(),
                digest: Some(digest(b"elsewhere")),
            }],
            ..Directory::default()
        }),
        ..Tree::default()
    };
    for blob in [b"no tree at all".to_vec(), lacking.encode_to_vec()] {
        server.stock(&blob).await;
        let result = ActionResult {
            output_directories: vec![OutputDirectory {
                path: "d".to_owned(),
                tree_digest: Some(digest(&blob)),
                ..OutputDirectory::default()
            }],
            ..ActionResult::default()
        };
        let refused = update(&server, result).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_action_digest_is_needed_and_has_to_be_one() {
    let server = Server::start().await;
    for action_digest in [
        None,
        Some(Digest::default()),
        Some(Digest {
            hash: "x".repeat(64),
            size_bytes: 1,
        }),
    ] {
        let asked = GetActionResultRequest {
            action_digest: action_digest.clone(),
            ..GetActionResultRequest::default()
        };
        let outcome = within(actions(&server).get_action_result(asked)).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{action_digest:?}");
        let sent = UpdateActionResultRequest {
            action_digest,
            action_result: Some(ActionResult::default()),
            ..UpdateActionResultRequest::default()
        };
        let outcome = within(actions(&server).update_action_result(sent)).await;
        assert_eq!(code(outcome), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn standard_output_and_error_come_inline_when_asked_for() {
    let server = Server::start().await;
    let (result, blobs) = of_everything(SHA256);
    store_all(&server, SHA256, &blobs).await;
    update(&server, result.clone()).await.unwrap();
    for (inline_stdout, inline_stderr) in [(true, true), (true, false), (false, true)] {
        let found = get_under(&server, Some(SHA256), |request| {
            (request.inline_stdout, request.inline_stderr) = (inline_stdout, inline_stderr);
        });
        let mut expected = answered(result.clone());
        if inline_stdout {
            expected.stdout_raw = blobs[1].clone();
        }
        if inline_stderr {
            expected.stderr_raw = blobs[2].clone();
        }
        assert_eq!(found.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn files_come_inline_when_their_paths_are_asked_for() {
    let server = Server::start().await;
    for function in [SHA256, Function::Blake3, Function::GitSha1] {
        let blobs = [b"rules".to_vec(), b"object".to_vec(), pattern(3, 40_000)];
        store_all(&server, function, &blobs).await;
        let files = ["a.d", "a.o", "b.d"].iter().zip(&blobs);
        let files = files.map(|(path, blob)| file(path, digest_under(function, blob)));
        let result = ActionResult {
            output_files: files.collect(),
            ..ActionResult::default()
        };
        update_under(&server, Some(function), result.clone())
            .await
            .unwrap();
        let found = get_under(&server, Some(function), |request| {
            request.inline_output_files = ["b.d", "a.d", "c.d"].map(str::to_owned).to_vec();
        });
        let mut expected = answered(result);
        expected.output_files[0].contents.clone_from(&blobs[0]);
        expected.output_files[2].contents.clone_from(&blobs[2]);
        assert_eq!(found.await.unwrap(), expected, "{function}");
    }
}

#[tokio::test]
async fn what_comes_inline_stays_below_one_mebibyte() {
    let server = Server::start().await;
    let (small, large) = (pattern(4, 600_000), pattern(5, 600_001));
    store_all(&server, SHA256, &[small.clone(), large.clone()]).await;
    let result = ActionResult {
        stdout_digest: Some(digest(&small)),
        stderr_digest: Some(digest(&large)),
        ..ActionResult::default()
    };
    update(&server, result.clone()).await.unwrap();
    let found = get_under(&server, Some(SHA256), |request| {
        (request.inline_stdout, request.inline_stderr) = (true, true);
    });
    let mut expected = answered(result);
    expected.stdout_raw = small;
    assert_eq!(found.await.unwrap(), expected);
}

#[tokio::test]
async fn inlining_keeps_fields_that_nobody_knows() {
    let server = Server::start().await;
    server.stock(b"content").await;
    let odd = [
        file("a", digest(b"content")).encode_to_vec(),
        field(77, b"?"),
    ]
    .concat();
    let result = [
        field(1000, b"before"),
        field(2, &odd),
        field(1001, b"behind"),
    ]
    .concat();
    raw(&server, UPDATE, raw_update(&result)).await.unwrap();
    let request = GetActionResultRequest {
        action_digest: Some(key()),
        inline_output_files: vec!["a".to_owned()],
        ..GetActionResultRequest::default()
    };
    let found = raw(&server, GET, request.encode_to_vec()).await.unwrap();
    let inlined = [odd, field(5, b"content")].concat();
    let metadata = field(9, b"");
    let expected = [
        field(1000, b"before"),
        field(2, &inlined),
        field(1001, b"behind"),
        metadata,
    ];
    assert_eq!(found, expected.concat());
}

#[tokio::test]
async fn what_was_stored_inline_is_not_added_again() {
    let server = Server::start().await;
    let (mut result, blobs) = of_everything(SHA256);
    store_all(&server, SHA256, &blobs).await;
    result.stdout_raw.clone_from(&blobs[1]);
    result.output_files[0].contents.clone_from(&blobs[0]);
    update(&server, result.clone()).await.unwrap();
    let found = get_under(&server, Some(SHA256), |request| {
        request.inline_stdout = true;
        request.inline_output_files = vec!["a".to_owned()];
    });
    assert_eq!(found.await.unwrap(), answered(result));
}

#[tokio::test]
async fn the_action_behind_a_key_is_not_looked_at() {
    let server = Server::start().await;
    // The digest of no action, but of a document that is not even stored.
    let request = UpdateActionResultRequest {
        action_digest: Some(digest(b"{\"task\":\"app:build\"}")),
        action_result: Some(ActionResult::default()),
        ..UpdateActionResultRequest::default()
    };
    within(actions(&server).update_action_result(request))
        .await
        .unwrap();
}

#[tokio::test]
async fn http_and_grpc_share_results() {
    let server = Server::start().await;
    server.stock(b"content").await;
    let result = of_file(digest(b"content"));
    let key = key();
    let path = format!("/ac/{}", key.hash);
    assert_eq!(server.put(&path, &result.encode_to_vec()).await.status, 200);
    let request = GetActionResultRequest {
        action_digest: Some(key),
        ..GetActionResultRequest::default()
    };
    let found = within(actions(&server).get_action_result(request)).await;
    assert_eq!(found.unwrap().into_inner(), answered(result.clone()));
    raw(&server, UPDATE, raw_update(&result.encode_to_vec()))
        .await
        .unwrap();
    assert_eq!(server.get(&path).await.body, result.encode_to_vec());
}

#[tokio::test]
async fn over_http_an_incomplete_result_is_taken_and_not_handed_out_before_it_is_complete() {
    let server = Server::start().await;
    let result = of_file(digest(b"late"));
    let path = format!("/ac/{}", digest(b"action").hash);
    assert_eq!(server.put(&path, &result.encode_to_vec()).await.status, 200);
    assert_eq!(code(get(&server).await), Code::NotFound);
    server.stock(b"late").await;
    assert_eq!(get(&server).await.unwrap(), answered(result));
}

#[tokio::test]
async fn what_a_result_names_is_leased_when_it_is_stored_and_when_it_is_found() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let memory = MemoryStore::with_clock(clock.clone());
    memory.set_retention(Retention {
        default_ttl: Some(Duration::from_hours(3)),
        ..Retention::default()
    });
    let server = Server::over(Arc::new(memory.clone()), memory.clone(), |_| {}).await;
    let (result, blobs) = of_everything(SHA256);
    for blob in &blobs {
        server.stock(blob).await;
    }
    let held = async || {
        let mut held = 0;
        for blob in &blobs {
            let digest = zimcache_types::Digest::of(SHA256, blob);
            let opened = memory
                .open(&Namespace::default(), &digest, ByteRange::Full)
                .await;
            held += usize::from(opened.unwrap().is_some());
        }
        held
    };
    clock.advance(Duration::from_hours(2));
    update(&server, result).await.unwrap();
    clock.advance(Duration::from_mins(119));
    assert_eq!(held().await, blobs.len(), "leased by the update");
    get(&server).await.unwrap();
    clock.advance(Duration::from_mins(239));
    assert_eq!(held().await, blobs.len(), "leased by the look-up");
    clock.advance(Duration::from_mins(2));
    assert_eq!(held().await, 0, "leases end");
}

#[tokio::test]
async fn instances_share_no_results_and_their_names_may_have_slashes() {
    let server = Server::start().await;
    for (instance_name, exit_code) in [("", 1), ("a", 2), ("a/b/c", 3)] {
        let request = UpdateActionResultRequest {
            instance_name: instance_name.to_owned(),
            action_digest: Some(key()),
            action_result: Some(ActionResult {
                exit_code,
                ..ActionResult::default()
            }),
            ..UpdateActionResultRequest::default()
        };
        within(actions(&server).update_action_result(request))
            .await
            .unwrap();
    }
    for (instance_name, exit_code) in [("", 1), ("default", 1), ("a", 2), ("a/b/c", 3)] {
        let request = GetActionResultRequest {
            instance_name: instance_name.to_owned(),
            action_digest: Some(key()),
            ..GetActionResultRequest::default()
        };
        let found = within(actions(&server).get_action_result(request)).await;
        assert_eq!(found.unwrap().into_inner().exit_code, exit_code);
    }
    for instance_name in ["a/../b", "a b", "/"] {
        let request = GetActionResultRequest {
            instance_name: instance_name.to_owned(),
            action_digest: Some(key()),
            ..GetActionResultRequest::default()
        };
        let outcome = within(actions(&server).get_action_result(request)).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{instance_name:?}");
    }
}

#[tokio::test]
async fn who_may_only_read_reads_results_and_may_not_store_any() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    let sent = UpdateActionResultRequest {
        instance_name: "team".to_owned(),
        action_digest: Some(key()),
        action_result: Some(ActionResult::default()),
        ..UpdateActionResultRequest::default()
    };
    let asked = GetActionResultRequest {
        instance_name: "team".to_owned(),
        action_digest: Some(key()),
        ..GetActionResultRequest::default()
    };
    let refused = bearing(&tokens.read, sent.clone());
    let refused = within(actions(&server).update_action_result(refused)).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let stored = bearing(&tokens.write, sent.clone());
    within(actions(&server).update_action_result(stored))
        .await
        .unwrap();
    let found = bearing(&tokens.read, asked.clone());
    within(actions(&server).get_action_result(found))
        .await
        .unwrap();
    let unknown = within(actions(&server).get_action_result(asked)).await;
    assert_eq!(code(unknown), Code::Unauthenticated);
    let unknown = within(actions(&server).update_action_result(sent)).await;
    assert_eq!(code(unknown), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_results_with_large_trees_do_not_wait_for_each_other() {
    let server = Server::start().await;
    let files = (0..20_000).map(|n| FileNode {
        name: format!("file-{n}"),
        digest: Some(digest(b"content")),
        ..FileNode::default()
    });
    let tree = Tree {
        root: Some(Directory {
            files: files.collect(),
            ..Directory::default()
        }),
        ..Tree::default()
    };
    let tree = tree.encode_to_vec();
    assert!(tree.len() > 1 << 20);
    store(&server, "", SHA256, &[b"content", &tree]).await;
    let result = ActionResult {
        stdout_raw: pattern(6, (1 << 20) + 1),
        output_directories: vec![OutputDirectory {
            path: "d".to_owned(),
            tree_digest: Some(digest(&tree)),
            ..OutputDirectory::default()
        }],
        ..ActionResult::default()
    };
    update(&server, result).await.unwrap();
    let asked = (0..32).map(|_| get(&server));
    let found = within(futures_util::future::join_all(asked)).await;
    assert!(found.iter().all(Result::is_ok));
}

#[tokio::test]
async fn another_tenants_results_are_nobodys_business() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    let asked = GetActionResultRequest {
        instance_name: "other".to_owned(),
        action_digest: Some(key()),
        ..GetActionResultRequest::default()
    };
    let refused = within(actions(&server).get_action_result(bearing(&tokens.admin, asked))).await;
    assert_eq!(code(refused), Code::PermissionDenied);
}

#[tokio::test]
async fn a_store_that_cannot_tell_is_unavailable_and_not_a_miss() {
    let server = Server::failing(wire::Failure::Disk).await;
    assert_eq!(code(get(&server).await), Code::Unavailable);
    let refused = update(&server, ActionResult::default()).await;
    assert_eq!(code(refused), Code::Unavailable);
    let server = Server::failing(wire::Failure::Full).await;
    let refused = update(&server, ActionResult::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(!refused.message().contains("sector"));
}
