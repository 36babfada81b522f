//! The script in a real Redis, and what is made of answers that are none.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

#[path = "../../../tests/wire/redis_server.rs"]
#[allow(dead_code, reason = "the wire tests use the rest of it")]
mod redis_server;
use redis_server::RedisServer;

const KEY: &str = "zimcache:{limits}:v4:7f000001:all";
const SECOND: u64 = 1_000_000_000;
/// A token a minute: none comes back while a test runs.
const INTERVAL: u64 = 60 * SECOND;
/// Time in which an empty bucket fills.
const DEPTH: u64 = 100 * INTERVAL;

const ASK: Ask = Ask {
    interval: INTERVAL,
    burst: 100,
    back: 0,
    keep: 0,
    owed: 0,
    batch: 10,
};

fn gateway(name: &str) -> GatewayId {
    GatewayId(name.to_owned())
}

async fn connect(url: &str) -> Result<Redis, Failure> {
    Redis::connect(&url.parse().unwrap()).await
}

async fn lease(redis: &mut Redis, name: &str, ask: Ask) -> Grant {
    let answer = redis.lease(&gateway(name), &[(KEY, ask)]).await.unwrap();
    answer.grants[0]
}

/// A Redis that knows two gateways.
async fn with_two() -> (RedisServer, Redis) {
    let server = RedisServer::start();
    let mut redis = connect(&server.url()).await.unwrap();
    redis.lease(&gateway("b"), &[]).await.unwrap();
    let known = redis.lease(&gateway("a"), &[]).await.unwrap();
    assert_eq!(known.gateways, 2);
    (server, redis)
}

#[tokio::test]
async fn each_gateway_gets_its_part_of_what_is_left_and_a_batch_at_least() {
    let (_server, mut redis) = with_two().await;
    let mut leased = Vec::new();
    for name in ["a", "b", "a", "b", "a", "b", "a"] {
        leased.push(lease(&mut redis, name, ASK).await.tokens.unwrap());
    }
    assert_eq!(leased, [50, 25, 13, 10, 2, 0, 0]);
    let full_in = lease(&mut redis, "b", ASK).await.full_in;
    assert!((DEPTH - INTERVAL..=DEPTH).contains(&full_in), "{full_in}");
}

#[tokio::test]
async fn what_is_given_back_is_there_again_and_a_full_bucket_takes_no_room() {
    let (server, mut redis) = with_two().await;
    let first = lease(&mut redis, "a", ASK).await;
    assert_eq!(first.tokens, Some(50));
    let ttl: u64 = server.ask(&["PTTL", KEY])[0].parse().unwrap();
    let half = 50 * INTERVAL / 1_000_000;
    assert!((half / 2..=half + 1_000).contains(&ttl), "{ttl}");
    let kept = Ask {
        back: 50,
        keep: 20,
        batch: 0,
        ..ASK
    };
    let half = lease(&mut redis, "a", kept).await;
    assert_eq!(half.tokens, Some(0));
    assert!(half.full_in <= 20 * INTERVAL, "{half:?}");
    let back = Ask {
        back: 20,
        batch: 0,
        ..ASK
    };
    assert_eq!(lease(&mut redis, "a", back).await.full_in, 0);
    assert_eq!(server.ask(&["EXISTS", KEY]), ["0"]);
}

#[tokio::test]
async fn tokens_come_back_at_their_pace() {
    let (_server, mut redis) = with_two().await;
    let fast = Ask {
        interval: SECOND / 100,
        ..ASK
    };
    let drain = Ask { owed: 100, ..fast };
    assert_eq!(lease(&mut redis, "a", drain).await.tokens, Some(0));
    let begun = Instant::now();
    let mut leased = 0;
    while leased < 30 {
        leased += lease(&mut redis, "a", fast).await.tokens.unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(270), "{leased} in {took:?}");
    let due = u32::try_from(took.as_millis() / 10).unwrap();
    assert!(leased <= due + 2, "{leased} in {took:?}");
}

#[tokio::test]
async fn what_was_spent_without_a_lease_is_charged_up_to_a_bound() {
    let (_server, mut redis) = with_two().await;
    let owed = Ask { owed: 105, ..ASK };
    let charged = lease(&mut redis, "a", owed).await;
    let expected = DEPTH + 5 * INTERVAL;
    assert!(charged.full_in.abs_diff(expected) < SECOND / 5);
    let too_much = Ask { owed: 9_000, ..ASK };
    let charged = lease(&mut redis, "a", too_much).await;
    // The burst, a twentieth of it, and a batch for each gateway.
    let most = DEPTH + DEPTH / 20 + SECOND / 5;
    assert!(charged.full_in.abs_diff(most) <= 2_000, "{charged:?}");
}

#[tokio::test]
async fn a_key_of_another_type_or_with_garbage_is_told_and_made_anew() {
    let (server, mut redis) = with_two().await;
    for words in [
        &["LPUSH", KEY, "x"][..],
        &["HSET", KEY, "a", "b"],
        &["SET", KEY, "not a number"],
        &["SET", KEY, "nan"],
        &["SET", KEY, ""],
    ] {
        server.ask(&["DEL", KEY]);
        server.ask(words);
        let told = lease(&mut redis, "a", ASK).await;
        assert_eq!(told.tokens, None, "{words:?}");
        assert_eq!(server.ask(&["TYPE", KEY]), ["string"]);
        let mended = lease(&mut redis, "a", ASK).await;
        assert_eq!(mended.tokens, Some(0), "{words:?}: as if all was spent");
    }
}

#[tokio::test]
async fn a_clock_that_jumped_fills_or_empties_a_bucket_once() {
    let (server, mut redis) = with_two().await;
    for (stored, longest) in [
        ("9e15", DEPTH * 5 / 4),
        ("inf", DEPTH * 5 / 4),
        ("1", DEPTH / 2),
        ("-inf", DEPTH / 2),
    ] {
        server.ask(&["SET", KEY, stored]);
        let grant = lease(&mut redis, "a", ASK).await;
        assert!(grant.full_in <= longest, "{stored} {grant:?}");
        assert_eq!(grant.tokens == Some(50), longest < DEPTH, "{stored}");
    }
}

#[tokio::test]
async fn gateways_that_are_silent_or_from_another_time_do_not_count() {
    let (server, mut redis) = with_two().await;
    server.ask(&["ZADD", GATEWAYS, "1", "from the past"]);
    server.ask(&["ZADD", GATEWAYS, "9e15", "from the future"]);
    let known = redis.lease(&gateway("a"), &[]).await.unwrap();
    assert_eq!(known.gateways, 2);
    server.ask(&["DEL", GATEWAYS]);
    server.ask(&["SET", GATEWAYS, "no set"]);
    let known = redis.lease(&gateway("a"), &[]).await.unwrap();
    assert_eq!(known.gateways, 1, "it was made anew");
    let ttl: i64 = server.ask(&["PTTL", GATEWAYS])[0].parse().unwrap();
    assert!((1..=5_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_thousand_limits_are_one_call() {
    let (server, mut redis) = with_two().await;
    let keys: Vec<_> = (0..1_000)
        .map(|n| format!("{PREFIX}v4:{n:08x}:all"))
        .collect();
    let limits: Vec<_> = keys.iter().map(|key| (&**key, ASK)).collect();
    let answer = redis.lease(&gateway("a"), &limits).await.unwrap();
    assert_eq!(answer.grants.len(), 1_000);
    assert!(answer.grants.iter().all(|grant| grant.tokens == Some(50)));
    assert_eq!(server.ask(&["DBSIZE"]), ["1001"]);
}

#[tokio::test]
async fn paces_from_one_an_hour_to_the_fastest_are_kept() {
    let (_server, mut redis) = with_two().await;
    let slow = Ask {
        interval: 3_600 * SECOND,
        burst: u32::MAX,
        owed: u32::MAX,
        ..ASK
    };
    let grant = lease(&mut redis, "a", slow).await;
    assert_eq!(grant.tokens, Some(0));
    let server = RedisServer::start();
    let mut redis = connect(&server.url()).await.unwrap();
    let fast = Ask {
        interval: 1,
        burst: u32::MAX,
        batch: 100_000_000,
        ..ASK
    };
    let all = lease(&mut redis, "a", fast).await.tokens.unwrap();
    assert!(all >= u32::MAX - 1, "{all}");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_refuses() {
    let server = RedisServer::start();
    let mut redis = connect(&server.url()).await.unwrap();
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let failure = redis.lease(&gateway("a"), &[(KEY, ASK)]).await.unwrap_err();
    assert_eq!(failure.kind(), LeaseFailure::Refused, "{failure}");
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    lease(&mut redis, "a", ASK).await;
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let failure = redis.lease(&gateway("a"), &[(KEY, ASK)]).await.unwrap_err();
    assert_eq!(failure.kind(), LeaseFailure::Refused, "{failure}");
}

#[tokio::test]
async fn a_script_that_was_forgotten_is_loaded_again() {
    let (server, mut redis) = with_two().await;
    server.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!(lease(&mut redis, "a", ASK).await.tokens, Some(50));
}

#[tokio::test]
async fn passwords_databases_and_sockets_of_the_url_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let server = RedisServer::with(&["--requirepass", "s3 cret", "--unixsocket", socket]);
    let port = server.port;
    for url in [
        format!("redis://:s3%20cret@127.0.0.1:{port}/3"),
        format!("redis://default:s3%20cret@localhost:{port}"),
        format!("redis+unix://:s3%20cret@{socket}?db=2"),
    ] {
        let mut redis = connect(&url).await.unwrap();
        assert_eq!(lease(&mut redis, "a", ASK).await.tokens, Some(100), "{url}");
    }
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:wr0ng@127.0.0.1:{port}"),
    ] {
        let failure = connect(&url).await.unwrap_err();
        assert_eq!(failure.kind(), LeaseFailure::Refused, "{failure}");
        assert!(!failure.to_string().contains("wr0ng"));
    }
}

/// Somebody who says this to whatever it is asked, and its URL.
async fn impostor(says: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    zimcache_telemetry::task::spawn("impostor", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 4_096];
            while stream.read(&mut asked).await.is_ok_and(|n| n > 0) {
                if stream.write_all(says.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    url
}

#[tokio::test]
async fn whoever_is_no_redis_is_found_out() {
    for (says, kind) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", LeaseFailure::Nonsense),
        ("\0\0\0\0\r\n", LeaseFailure::Nonsense),
        (
            "-LOADING Redis is loading\r\n-LOADING x\r\n-LOADING x\r\n",
            LeaseFailure::Refused,
        ),
        (
            "-NOAUTH Authentication required.\r\n-NOAUTH x\r\n-NOAUTH x\r\n",
            LeaseFailure::Refused,
        ),
    ] {
        let failure = connect(&impostor(says).await).await.unwrap_err();
        assert_eq!(failure.kind(), kind, "{says:?} {failure}");
    }
    let gone = connect(&format!("redis://127.0.0.1:{}", redis_server::free_port())).await;
    assert_eq!(gone.unwrap_err().kind(), LeaseFailure::Connection);
}

#[test]
fn answers_that_the_script_cannot_give_are_not_believed() {
    let limits = [(KEY, ASK)];
    let of = |numbers: &[i64]| Value::Array(numbers.iter().map(|it| Value::Int(*it)).collect());
    let good = read(&of(&[2, 50, 1_000]), &limits).unwrap();
    assert_eq!(good.gateways, 2);
    assert_eq!(
        (good.grants[0].tokens, good.grants[0].full_in),
        (Some(50), 1_000_000)
    );
    assert_eq!(
        read(&of(&[2, -1, 0]), &limits).unwrap().grants[0].tokens,
        None
    );
    for bad in [
        &[][..],
        &[2],
        &[0, 50, 0],
        &[-1, 50, 0],
        &[100_001, 50, 0],
        &[2, 101, 0],
        &[2, -2, 0],
        &[2, 50, -1],
        &[2, 50],
        &[2, 50, 0, 0],
    ] {
        assert_eq!(read(&of(bad), &limits), None, "{bad:?}");
    }
    assert_eq!(read(&Value::Okay, &limits), None);
    let text = Value::Array(vec![Value::Int(1), Value::Nil, Value::Int(0)]);
    assert_eq!(read(&text, &limits), None);
}

proptest! {
    #[test]
    fn no_answer_leases_more_than_a_burst(numbers in prop::collection::vec(any::<i64>(), 0..6)) {
        let value = Value::Array(numbers.into_iter().map(Value::Int).collect());
        if let Some(answer) = read(&value, &[(KEY, ASK), (KEY, ASK)]) {
            prop_assert!(answer.grants.iter().all(|grant| grant.tokens <= Some(ASK.burst)));
        }
    }
}
