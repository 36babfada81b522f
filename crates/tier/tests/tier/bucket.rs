//! The client: buckets that are missing, credentials, conditions and connections that break.

use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};

use zimcache_store::ByteRange;
use zimcache_tier::{Bucket, BucketSettings, Error, Operation, TierSettings};
use zimcache_types::SystemClock;

use crate::{
    replica::MemoryReplica,
    server::{BUCKET, Server, settings_at},
    stub::{Answer, Stub},
    support::{Node, bucket, drink, eventually, found, loaded_node, node_with, noise},
};

#[tokio::test]
async fn a_missing_bucket_is_made_only_if_that_is_wanted() {
    let server = Server::without_bucket();
    let wary = bucket(server.settings()).await;
    assert!(matches!(wary.check().await, Err(Error::NoBucket)));
    assert!(!server.bucket_folder().exists());

    wary.ensure_bucket().await.unwrap();
    wary.ensure_bucket().await.unwrap();
    wary.check().await.unwrap();
    assert!(server.bucket_folder().is_dir());
}

#[tokio::test]
async fn a_missing_bucket_is_not_taken_for_missing_objects() {
    let server = Server::without_bucket();
    let bucket = bucket(server.settings()).await;
    let got = bucket.get("v1/default/sha256/aa/x", ByteRange::Full).await;
    assert!(matches!(got, Err(Error::NoBucket)), "{got:?}");
}

#[tokio::test]
async fn a_bucket_that_vanishes_is_made_again_by_the_next_upload() {
    let server = Server::start();
    let settings = BucketSettings {
        create_bucket: true,
        ..server.settings()
    };
    let node = node_with(
        settings,
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    );
    let node = node.await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    std::fs::remove_dir_all(server.bucket_folder()).unwrap();
    node.replica.put_blob(b"a body");
    node.is_clean().await;
    assert_eq!(server.objects().len(), 1);
}

#[tokio::test]
async fn wrong_credentials_are_a_refusal_and_the_secret_is_never_shown() {
    let server = Server::start();
    let mut settings = server.settings();
    settings.access.as_mut().unwrap().secret = "hush-hush".into();
    assert!(!format!("{settings:?}").contains("hush"));
    let bucket = bucket(settings).await;
    let refused = bucket.get("v1/x", ByteRange::Full).await.unwrap_err();
    assert!(
        matches!(refused, Error::Refused { status: 403, .. }),
        "{refused}"
    );
    assert!(bucket.is_reachable(), "an answer is no outage");
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let server = Server::with_tls();
    let settings = BucketSettings {
        endpoint: Some(format!("https://{}", server.address()).into()),
        ..server.settings()
    };
    let named = BucketSettings {
        ca_file: Some(server.certificate()),
        ..settings.clone()
    };
    bucket(named).await.check().await.unwrap();
    let refused = bucket(settings).await.check().await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn ranges_and_sizes_are_those_of_the_object() {
    let server = Server::start();
    let bucket = bucket(server.settings()).await;
    let body = noise(1, 300_000);
    std::fs::write(server.bucket_folder().join("plain"), &body).unwrap();
    let cases = [
        (ByteRange::Full, 0..300_000),
        (
            ByteRange::From {
                first: 7,
                last: Some(99_999),
            },
            7..100_000,
        ),
        (
            ByteRange::From {
                first: 299_999,
                last: None,
            },
            299_999..300_000,
        ),
        (ByteRange::Suffix(10), 299_990..300_000),
    ];
    for (range, bytes) in cases {
        let mut object = bucket.get("plain", range).await.unwrap().unwrap();
        assert_eq!(object.stat().size_bytes, 300_000);
        assert_eq!(object.remaining(), bytes);
        let mut all = Vec::new();
        while let Some(chunk) = object.next_chunk().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        assert!(all == body[bytes.start as usize..bytes.end as usize]);
    }
    let behind = ByteRange::From {
        first: 300_000,
        last: None,
    };
    let refused = bucket.get("plain", behind).await;
    assert!(
        matches!(refused, Err(Error::RangeInvalid { .. })),
        "{refused:?}"
    );
    assert!(
        bucket
            .get("absent", ByteRange::Full)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_read_goes_on_where_its_connection_broke() {
    let server = Server::start();
    let body = noise(2, 3 << 20);
    let writer = loaded_node(&server).await;
    let key = writer.replica.put_blob(&body);
    writer.is_clean().await;

    let wire = crate::proxy::cut_once(server.address(), 1 << 20).await;
    let reader = over(wire.address).await;
    assert!(drink(reader.open(&key).await).await.unwrap() == body);
    assert_eq!(wire.cuts.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(reader.tier.bucket().requests().of(Operation::Get), 2);
    eventually("it is kept", || reader.replica.holds(&key)).await;
}

async fn over(address: SocketAddr) -> Node {
    let node = node_with(
        settings_at(address),
        TierSettings::default(),
        Arc::default(),
        MemoryReplica::default(),
    );
    node.await
}

fn empty_list() -> Answer {
    let list = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    Answer::Say("200 OK", "", list.to_owned())
}

fn error(status: &'static str, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>x</Message></Error>");
    Answer::Say(status, "content-type: application/xml\r\n", body)
}

/// One upload of a blob of six bytes against made-up answers.
async fn upload_against(answers: Vec<Answer>) -> (Node, Stub) {
    let mut all = vec![empty_list()];
    all.extend(answers);
    let stub = Stub::start(all).await;
    let node = over(stub.address).await;
    eventually("the filter is loaded", || node.tier.presence().is_loaded()).await;
    node.replica.put_blob(b"a body");
    node.is_clean().await;
    assert_eq!(stub.left(), 0, "all answers were wanted");
    (node, stub)
}

#[tokio::test]
async fn a_lost_race_of_conditional_writes_is_looked_at_and_tried_again() {
    let (node, stub) = upload_against(vec![
        error("409 Conflict", "ConditionalRequestConflict"),
        Answer::Say("404 Not Found", "", String::new()),
        Answer::Say("200 OK", "etag: \"x\"\r\n", String::new()),
    ])
    .await;
    let asked = stub.asked();
    let puts: Vec<_> = asked.iter().filter(|ask| ask.starts_with("put ")).collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert!(put.contains("if-none-match: *"), "{put}");
        // The SHA-256 of "a body" in Base64.
        assert!(put.contains("x-amz-checksum-sha256: "), "{put}");
    }
    assert_eq!(node.tier.figures().uploads(), 1);
}

#[tokio::test]
async fn a_broken_connection_of_a_conditional_write_is_settled_by_looking() {
    let there = "etag: \"x\"\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nx-size: 6\r\n";
    let (node, stub) = upload_against(vec![
        Answer::HangUp,
        Answer::Say("200 OK", there, "a body".to_owned()),
    ])
    .await;
    let asked = stub.asked();
    assert!(asked.last().unwrap().starts_with("head "), "{asked:?}");
    assert_eq!(node.tier.figures().uploads_spared(), 1);
    assert!(node.tier.bucket().is_reachable());
}

#[tokio::test]
async fn a_server_that_asks_to_slow_down_is_asked_again_later() {
    let (node, _stub) = upload_against(vec![
        error("503 Slow Down", "SlowDown"),
        Answer::Say("404 Not Found", "", String::new()),
        Answer::Say("200 OK", "etag: \"x\"\r\n", String::new()),
    ])
    .await;
    assert_eq!(node.tier.figures().uploads(), 1);
    assert_eq!(node.tier.bucket().requests().failed(), 1);
}

#[tokio::test]
async fn clusters_under_different_prefixes_do_not_see_each_other() {
    let server = Server::start();
    let under = |prefix: &str| {
        let settings = BucketSettings {
            prefix: prefix.into(),
            ..server.settings()
        };
        node_with(
            settings,
            TierSettings::default(),
            Arc::default(),
            MemoryReplica::default(),
        )
    };
    let (one, other) = (under("one").await, under("one/b").await);
    let key = one.replica.put_blob(b"a body");
    one.is_clean().await;
    assert!(server.objects()[0].starts_with("one/v1/default/sha256/"));
    let found_none = other.tier.fill(&key, ByteRange::Full).await.unwrap();
    assert!(
        matches!(found_none, zimcache_tier::Fill::Absent),
        "{found_none:?}"
    );
    one.replica.evict(&key);
    assert_eq!(one.read(&key).await.unwrap(), b"a body");
    found(one.tier.fill(&key, ByteRange::Full).await.unwrap());
}

/// Says to a test that it is the child of itself, and where the server is.
const CHILD: &str = "ZIMCACHE_TIER_TEST_CHILD";

/// Runs a test again as a process with this environment and nothing else of AWS.
fn run_child(test: &str, server: SocketAddr, environment: &[(&str, &str)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]);
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
    ] {
        child.env_remove(name);
    }
    child.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    child.env("AWS_CONFIG_FILE", "/dev/null");
    child.envs(environment.iter().copied());
    child.env(CHILD, server.to_string());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// In the child: the server can be used with the credentials that the environment leads to.
async fn is_child() -> bool {
    let Some(server) = std::env::var_os(CHILD) else {
        return false;
    };
    let settings = BucketSettings {
        access: None,
        bucket: BUCKET.into(),
        ..settings_at(server.to_str().unwrap().parse().unwrap())
    };
    let bucket = Bucket::connect(settings, Arc::new(SystemClock), 1)
        .await
        .unwrap();
    let checked = tokio::time::timeout(Duration::from_secs(20), bucket.check());
    checked.await.expect("no delay").unwrap();
    true
}

#[tokio::test]
async fn credentials_come_from_the_environment() {
    if is_child().await {
        return;
    }
    let server = Server::start();
    run_child(
        "bucket::credentials_come_from_the_environment",
        server.address(),
        &[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "testsecret"),
        ],
    );
}

#[tokio::test]
async fn credentials_come_from_a_profile() {
    if is_child().await {
        return;
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let profile = "[build]\naws_access_key_id=test\naws_secret_access_key=testsecret\n";
    std::fs::write(&file, profile).unwrap();
    run_child(
        "bucket::credentials_come_from_a_profile",
        server.address(),
        &[
            ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
            ("AWS_PROFILE", "build"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_a_web_identity() {
    if is_child().await {
        return;
    }
    let server = Server::start();
    let given = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
        <AccessKeyId>test</AccessKeyId><SecretAccessKey>testsecret</SecretAccessKey>\
        <SessionToken></SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>\
        </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let sts = Stub::start(vec![Answer::Say("200 OK", "", given.to_owned())]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a token").unwrap();
    let (token, endpoint) = (
        token.to_str().unwrap().to_owned(),
        format!("http://{}", sts.address),
    );
    let address = server.address();
    let child = tokio::task::spawn_blocking(move || {
        let environment = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/zimcache"),
            ("AWS_ENDPOINT_URL_STS", endpoint.as_str()),
        ];
        run_child(
            "bucket::credentials_come_from_a_web_identity",
            address,
            &environment,
        );
    });
    child.await.unwrap();
    assert_eq!(sts.asked().len(), 1);
}
