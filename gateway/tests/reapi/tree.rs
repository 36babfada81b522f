//! `ContentAddressableStorage.GetTree`: what is in a tree, page by page.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2::{
    Digest, Directory, DirectoryNode, FileNode, GetTreeRequest, GetTreeResponse, SymlinkNode,
};
use prost::Message;
use tonic::Code;
use zimcache_types::Function;

use crate::{
    clients::{FUNCTIONS, bearing, cas, digest_under, lose, store},
    support::{Outcome, Server, code, digest, within},
    wire,
};

const SHA256: Function = Function::Sha256;

/// A directory that holds others, and so many files that its size is what is wanted.
fn directory(function: Function, name: &str, files: usize, below: &[&Directory]) -> Directory {
    let file = |n: usize| FileNode {
        name: format!("{name}-{n}"),
        digest: Some(digest_under(function, name.as_bytes())),
        ..FileNode::default()
    };
    let nodes = below.iter().enumerate().map(|(n, below)| DirectoryNode {
        name: format!("d{n}"),
        digest: Some(digest_under(function, &below.encode_to_vec())),
    });
    Directory {
        files: (0..files).map(file).collect(),
        directories: nodes.collect(),
        ..Directory::default()
    }
}

/// Stores directories; gives the digest of the last.
async fn stock(server: &Server, function: Function, directories: &[&Directory]) -> Digest {
    let mut last = Digest::default();
    for directory in directories {
        let encoded = directory.encode_to_vec();
        store(server, "", function, &[&encoded]).await;
        last = digest_under(function, &encoded);
    }
    last
}

fn whole(root: Digest) -> GetTreeRequest {
    GetTreeRequest {
        root_digest: Some(root),
        ..GetTreeRequest::default()
    }
}

async fn pages(server: &Server, request: GetTreeRequest) -> Outcome<Vec<GetTreeResponse>> {
    let mut stream = within(cas(server).get_tree(request)).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = within(stream.message()).await? {
        assert!(page.encoded_len() < 4 << 20);
        pages.push(page);
    }
    Ok(pages)
}

fn directories(pages: &[GetTreeResponse]) -> Vec<Directory> {
    let directories = pages.iter().flat_map(|page| &page.directories);
    directories.cloned().collect()
}

/// A root with three children, one of them with a child of its own.
fn family(function: Function) -> [Directory; 5] {
    let leaf = directory(function, "leaf", 1, &[]);
    let a = directory(function, "a", 1, &[&leaf]);
    let b = directory(function, "b", 2, &[]);
    let c = directory(function, "c", 0, &[]);
    let root = directory(function, "root", 1, &[&a, &b, &c]);
    [leaf, a, b, c, root]
}

#[tokio::test]
async fn every_directory_below_the_root_comes_once_and_the_root_first() {
    let server = Server::start().await;
    for function in FUNCTIONS {
        let family = family(function);
        let root = stock(&server, function, &family.each_ref()).await;
        let request = GetTreeRequest {
            digest_function: function.number().into(),
            ..whole(root)
        };
        let pages = pages(&server, request).await.unwrap();
        assert_eq!(pages.last().unwrap().next_page_token, "");
        let found = directories(&pages);
        let [leaf, a, b, c, root] = family;
        assert_eq!(found[0], root, "{function}");
        assert_eq!(found.len(), 5);
        for directory in [leaf, a, b, c] {
            assert!(found.contains(&directory), "{function}");
        }
    }
}

#[tokio::test]
async fn a_tree_of_blake3_is_found_although_no_function_is_named() {
    let server = Server::start().await;
    let family = family(Function::Blake3);
    let root = stock(&server, Function::Blake3, &family.each_ref()).await;
    let found = pages(&server, whole(root)).await.unwrap();
    assert_eq!(directories(&found).len(), 5);
}

#[tokio::test]
async fn a_directory_that_is_named_often_comes_once() {
    let server = Server::start().await;
    let shared = directory(SHA256, "shared", 3, &[]);
    let a = directory(SHA256, "a", 1, &[&shared, &shared]);
    let b = directory(SHA256, "b", 1, &[&shared, &a]);
    let root = directory(SHA256, "root", 0, &[&a, &b, &shared]);
    let digest = stock(&server, SHA256, &[&shared, &a, &b, &root]).await;
    let found = directories(&pages(&server, whole(digest)).await.unwrap());
    assert_eq!(found.len(), 4);
}

#[tokio::test]
async fn a_missing_root_is_not_found() {
    let server = Server::start().await;
    let family = family(SHA256);
    let root = stock(&server, SHA256, &family.each_ref()).await;
    let other = Digest {
        size_bytes: root.size_bytes + 1,
        ..root
    };
    for absent in [digest(b"absent"), other] {
        let outcome = pages(&server, whole(absent)).await;
        assert_eq!(code(outcome), Code::NotFound);
    }
}

#[tokio::test]
async fn what_is_missing_below_the_root_is_left_out() {
    let server = Server::start().await;
    let family = family(SHA256);
    let root = stock(&server, SHA256, &family.each_ref()).await;
    let [leaf, a, b, c, top] = family;
    lose(&server, SHA256, &b.encode_to_vec()).await;
    let found = directories(&pages(&server, whole(root.clone())).await.unwrap());
    assert_eq!(found, [top.clone(), a.clone(), c.clone(), leaf]);
    lose(&server, SHA256, &a.encode_to_vec()).await;
    let found = directories(&pages(&server, whole(root)).await.unwrap());
    assert_eq!(found, [top, c]);
}

#[tokio::test]
async fn an_empty_root_is_one_empty_directory() {
    let server = Server::start().await;
    let found = pages(&server, whole(digest(b""))).await.unwrap();
    assert_eq!(directories(&found), [Directory::default()]);
}

#[tokio::test]
async fn pages_are_as_small_as_asked_for_and_any_of_them_can_be_gone_on_from() {
    let server = Server::start().await;
    let family = family(SHA256);
    let root = stock(&server, SHA256, &family.each_ref()).await;
    let all = directories(&pages(&server, whole(root.clone())).await.unwrap());
    for page_size in 1..=6 {
        let request = GetTreeRequest {
            page_size,
            ..whole(root.clone())
        };
        let found = pages(&server, request.clone()).await.unwrap();
        assert_eq!(directories(&found), all);
        let size = usize::try_from(page_size).unwrap();
        assert_eq!(found.len(), all.len().div_ceil(size));
        for (page, sent) in found.iter().zip((size..).step_by(size)) {
            assert!(page.directories.len() <= size);
            if sent >= all.len() {
                assert_eq!(page.next_page_token, "");
                continue;
            }
            let request = GetTreeRequest {
                page_token: page.next_page_token.clone(),
                ..request.clone()
            };
            let rest = pages(&server, request).await.unwrap();
            assert_eq!(directories(&rest), all[sent..], "{page_size} {sent}");
        }
    }
}

#[tokio::test]
async fn a_page_token_outlives_a_directory_that_was_lost_meanwhile() {
    let server = Server::start().await;
    let family = family(SHA256);
    let root = stock(&server, SHA256, &family.each_ref()).await;
    let request = GetTreeRequest {
        page_size: 2,
        ..whole(root)
    };
    let found = pages(&server, request.clone()).await.unwrap();
    let rest = directories(&found[1..]);
    // The last directory of the first page, and one before it, are gone.
    lose(&server, SHA256, &family[1].encode_to_vec()).await;
    let request = GetTreeRequest {
        page_token: found[0].next_page_token.clone(),
        ..request
    };
    let again = directories(&pages(&server, request).await.unwrap());
    assert_eq!(again, rest[..2], "its child is not reached any more");
}

#[tokio::test]
async fn a_page_token_that_is_not_of_this_tree_is_invalid() {
    let server = Server::start().await;
    let family = family(SHA256);
    let root = stock(&server, SHA256, &family.each_ref()).await;
    let inner = digest(&family[1].encode_to_vec());
    let request = GetTreeRequest {
        page_size: 1,
        ..whole(inner)
    };
    let foreign = pages(&server, request).await.unwrap().remove(0);
    let crafted = format!("{}-{}-7", root.hash, digest(b"absent").hash);
    let tokens = [
        foreign.next_page_token,
        crafted,
        "x".to_owned(),
        "a-b-c".to_owned(),
    ];
    for page_token in tokens {
        let request = GetTreeRequest {
            page_token: page_token.clone(),
            ..whole(root.clone())
        };
        let outcome = pages(&server, request).await;
        assert_eq!(code(outcome), Code::InvalidArgument, "{page_token}");
    }
}

#[tokio::test]
async fn a_large_tree_comes_in_messages_below_four_mebibytes() {
    let server = Server::start().await;
    let children: Vec<_> = (0..40)
        .map(|n| directory(SHA256, &format!("child-{n}"), 2500, &[]))
        .collect();
    let children: Vec<_> = children.iter().collect();
    let root = directory(SHA256, "root", 0, &children);
    let large = directory(SHA256, "large", 40_000, &[]);
    let top = directory(SHA256, "top", 0, &[&large, &root]);
    stock(&server, SHA256, &children).await;
    let digest = stock(&server, SHA256, &[&large, &root, &top]).await;
    let found = pages(&server, whole(digest)).await.unwrap();
    assert!(found.len() > 5);
    assert_eq!(directories(&found).len(), 43);
}

#[tokio::test]
async fn a_deep_tree_is_walked_to_its_end() {
    let server = Server::start().await;
    let mut all = vec![directory(SHA256, "leaf", 1, &[])];
    for n in 0..1000 {
        let next = directory(SHA256, &format!("level-{n}"), 0, &[all.last().unwrap()]);
        all.push(next);
    }
    let root = stock(&server, SHA256, &all.iter().collect::<Vec<_>>()).await;
    let found = directories(&pages(&server, whole(root)).await.unwrap());
    all.reverse();
    assert_eq!(found, all);
}

#[tokio::test]
async fn a_wide_tree_comes_whole() {
    let server = Server::start().await;
    let children: Vec<_> = (0..9000)
        .map(|n| directory(SHA256, &format!("child-{n}"), 1, &[]))
        .collect();
    let encoded: Vec<Vec<u8>> = children.iter().map(Message::encode_to_vec).collect();
    let blobs: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    store(&server, "", SHA256, &blobs).await;
    let root = directory(SHA256, "root", 0, &children.iter().collect::<Vec<_>>());
    let root = stock(&server, SHA256, &[&root]).await;
    let found = directories(&pages(&server, whole(root)).await.unwrap());
    let names = found.iter().filter_map(|it| it.files.first());
    let names: HashSet<&str> = names.map(|file| file.name.as_str()).collect();
    assert_eq!((found.len(), names.len()), (9001, 9000));
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_harms_nobody() {
    let server = Server::start().await;
    let link = |n: usize| SymlinkNode {
        name: format!("link-{n}"),
        target: "x".repeat(100_000),
        ..SymlinkNode::default()
    };
    let children: Vec<_> = (0..60)
        .map(|n| Directory {
            symlinks: vec![link(n)],
            ..Directory::default()
        })
        .collect();
    let children: Vec<_> = children.iter().collect();
    stock(&server, SHA256, &children).await;
    let root = directory(SHA256, "root", 0, &children);
    let root = stock(&server, SHA256, &[&root]).await;
    // More walks than there may be at once.
    for _ in 0..200 {
        let stream = within(cas(&server).get_tree(whole(root.clone()))).await;
        let mut stream = stream.unwrap().into_inner();
        assert!(within(stream.message()).await.unwrap().is_some());
    }
    let found = pages(&server, whole(root)).await.unwrap();
    assert_eq!(directories(&found).len(), 61);
}

#[tokio::test]
async fn what_is_no_directory_is_invalid() {
    let server = Server::start().await;
    server.stock(b"no directory at all").await;
    let outcome = pages(&server, whole(digest(b"no directory at all"))).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
    let escaping = Directory {
        directories: vec![DirectoryNode {
            name: "../up".to_owned(),
            digest: Some(digest(b"x")),
        }],
        ..Directory::default()
    };
    let root = stock(&server, SHA256, &[&escaping]).await;
    let outcome = pages(&server, whole(root.clone())).await;
    assert_eq!(code(outcome), Code::InvalidArgument);
    for request in [
        GetTreeRequest::default(),
        GetTreeRequest {
            page_size: -1,
            ..whole(root)
        },
    ] {
        let outcome = pages(&server, request).await;
        assert_eq!(code(outcome), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_tree_is_read_by_who_may_read() {
    let (policy, tokens) = wire::guarded("team");
    let server = Server::with_policy(policy).await;
    let request = GetTreeRequest {
        instance_name: "team".to_owned(),
        ..whole(digest(b""))
    };
    let unknown = within(cas(&server).get_tree(request.clone())).await;
    assert_eq!(code(unknown), Code::Unauthenticated);
    let known = within(cas(&server).get_tree(bearing(&tokens.read, request))).await;
    let page = within(known.unwrap().into_inner().message()).await.unwrap();
    assert_eq!(page.unwrap().directories.len(), 1);
    let elsewhere = GetTreeRequest {
        instance_name: "other".to_owned(),
        ..whole(digest(b""))
    };
    let refused = within(cas(&server).get_tree(bearing(&tokens.admin, elsewhere))).await;
    assert_eq!(code(refused), Code::PermissionDenied);
}
