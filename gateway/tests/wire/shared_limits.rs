//! Rate limits that gateways share through a real Redis: what they let pass together, and what without it.
//!
//! Requests ask for a Turborepo artifact that is not there: 404 when they pass, 429 when not. The limit is that of
//! look-ups, so that reading `/metrics` takes nothing from it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use zimcache_config::{LimitsConfig, Rate};
use zimcache_gateway::Policy;

use crate::{
    redis_server::{RedisServer, free_port},
    support::{PATIENCE, Server, get, guarded},
};

const LOOK_UP: &str = "/v8/artifacts/0123456789abcdef";

fn policy(url: &str, rate: &str) -> Policy {
    Policy {
        limits: LimitsConfig {
            reads: rate.parse().ok(),
            redis: url.parse().ok(),
            ..LimitsConfig::default()
        },
        ..Policy::default()
    }
}

/// A figure of a gateway; 0 where it has none.
async fn figure(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics").await.text();
    let mut lines = page.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(known, _)| *known == name);
    found.map_or(0, |(_, value)| value.parse().unwrap())
}

async fn errors(server: &Server, kind: &str) -> u64 {
    let name = format!("zimcache_rate_limit_redis_errors_total{{kind=\"{kind}\"}}");
    figure(server, &name).await
}

async fn all_errors(servers: &[Server]) -> u64 {
    let mut all = 0;
    for server in servers {
        for kind in ["timeout", "connection", "refused", "nonsense", "wrong_type"] {
            all += errors(server, kind).await;
        }
    }
    all
}

async fn until_figure(server: &Server, name: &str, expected: u64) {
    let begun = Instant::now();
    while figure(server, name).await != expected {
        assert!(begun.elapsed() < PATIENCE, "{name} is not {expected}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_up(server: &Server, up: bool) {
    until_figure(server, "zimcache_rate_limit_redis_up", u64::from(up)).await;
}

/// Gateways that know of one another.
async fn gateways(redis: &RedisServer, rate: &str, count: u64) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::with_policy(policy(&redis.url(), rate)).await);
    }
    for server in &servers {
        until_up(server, true).await;
        until_figure(server, "zimcache_rate_limit_gateways", count).await;
    }
    servers
}

/// How many of the requests pass that one client sends, one after the other, for this long.
async fn passed(server: &Server, time: Duration) -> u32 {
    let mut client = server.connect().await;
    let begun = Instant::now();
    let mut passed = 0;
    while begun.elapsed() < time {
        client.send(get(LOOK_UP)).await;
        match client.reply().await.status {
            404 => passed += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    passed
}

/// The same of clients of both gateways, and the time that it took.
async fn passed_by_both(servers: &[Server], time: Duration) -> (u32, Duration) {
    let begun = Instant::now();
    let (one, other) = tokio::join!(passed(&servers[0], time), passed(&servers[1], time));
    (one + other, begun.elapsed())
}

/// What a limit lets pass in this time, from a full bucket on.
fn allowed(rate: &str, time: Duration) -> f64 {
    let rate: Rate = rate.parse().unwrap();
    f64::from(rate.burst) + f64::from(rate.requests) * time.as_secs_f64()
}

#[tokio::test]
async fn two_gateways_keep_to_one_limit_together() {
    const RATE: &str = "200/s burst 300";
    /// 100 ms of it, for each of two gateways.
    const BATCHES: f64 = 2.0 * 20.0;
    // On a machine that stands still for 50 ms gateways fall back to their shares, which is another test's matter.
    for _ in 0..8 {
        let redis = RedisServer::start();
        let servers = gateways(&redis, RATE, 2).await;
        let (passed, time) = passed_by_both(&servers, Duration::from_secs(3)).await;
        if all_errors(&servers).await > 0 {
            continue;
        }
        let allowed = allowed(RATE, time);
        let passed = f64::from(passed);
        println!("{passed} passed, {allowed:.0} allowed");
        assert!(passed <= 1.05 * allowed + BATCHES, "{passed} of {allowed}");
        assert!(passed >= 0.95 * allowed - BATCHES, "{passed} of {allowed}");
        return;
    }
    panic!("Redis was never answered in time for three seconds");
}

#[tokio::test]
async fn who_is_over_the_limit_at_one_gateway_is_so_at_the_other() {
    const RATE: &str = "100/h";
    for _ in 0..8 {
        let redis = RedisServer::start();
        let servers = gateways(&redis, RATE, 2).await;
        let one = passed(&servers[0], Duration::from_secs(1)).await;
        let other = passed(&servers[1], Duration::from_secs(1)).await;
        if all_errors(&servers).await > 0 {
            continue;
        }
        // A batch is one token, and the other one may have spent a share of 5 % before it knew.
        assert!((98..=101).contains(&one), "{one}");
        assert!(one + other <= 105 + 2, "{one} {other}");
        return;
    }
    panic!("Redis was never answered in time");
}

#[tokio::test]
async fn without_redis_each_gateway_keeps_to_its_share_and_comes_back_by_itself() {
    const RATE: &str = "200/s";
    let mut redis = RedisServer::start();
    let servers = gateways(&redis, RATE, 2).await;
    let begun = Instant::now();
    let (before, _) = passed_by_both(&servers, Duration::from_millis(500)).await;
    redis.kill();
    let (meanwhile, time) = passed_by_both(&servers, Duration::from_secs(3)).await;
    for server in &servers {
        until_up(server, false).await;
        assert_eq!(figure(server, "zimcache_rate_limit_gateways").await, 2);
    }
    let whole = allowed(RATE, begun.elapsed());
    let all = f64::from(before + meanwhile);
    assert!(all <= 2.0 * whole, "{all} of {whole}");
    let least = 0.8 * 200.0 * time.as_secs_f64() - 20.0;
    assert!(f64::from(meanwhile) >= least, "{meanwhile} of {least}");
    redis.start_again();
    for server in &servers {
        until_up(server, true).await;
    }
    let (after, _) = passed_by_both(&servers, Duration::from_secs(2)).await;
    let whole = allowed(RATE, begun.elapsed());
    let all = f64::from(before + meanwhile + after);
    assert!(all <= 2.0 * whole, "{all} of {whole}");
    assert!(after > 200, "{after}");
}

#[tokio::test]
async fn no_request_waits_for_a_redis_that_stands_still() {
    let redis = RedisServer::start();
    let servers = gateways(&redis, "100000/s", 2).await;
    redis.freeze();
    let (passed, _) = passed_by_both(&servers, Duration::from_secs(1)).await;
    assert!(passed > 20, "{passed} passed while Redis stood still");
    for server in &servers {
        until_up(server, false).await;
        assert!(errors(server, "timeout").await >= 1);
    }
    redis.thaw();
    for server in &servers {
        until_up(server, true).await;
    }
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_mended_and_costs_the_share_alone() {
    let redis = RedisServer::start();
    let servers = gateways(&redis, "50/s", 2).await;
    passed(&servers[0], Duration::from_millis(200)).await;
    let key = "zimcache:{limits}:v4:7f000001:reads";
    assert_eq!(redis.ask(&["TYPE", key]), ["string"]);
    let begun = Instant::now();
    let mut passed_so_far = 0;
    while errors(&servers[0], "wrong_type").await == 0 {
        assert!(begun.elapsed() < PATIENCE);
        redis.ask(&["DEL", key]);
        redis.ask(&["LPUSH", key, "x"]);
        passed_so_far += passed(&servers[0], Duration::from_millis(100)).await;
    }
    assert!(f64::from(passed_so_far) <= 2.0 * allowed("50/s", begun.elapsed()));
    let begun = Instant::now();
    while redis.ask(&["TYPE", key]) != ["string"] {
        assert!(begun.elapsed() < PATIENCE, "the key stays what it is");
        passed(&servers[0], Duration::from_millis(50)).await;
    }
    assert!(passed(&servers[0], Duration::from_secs(2)).await >= 20);
}

#[tokio::test]
async fn hundreds_of_callers_each_have_their_own_shared_limit() {
    const CALLERS: u32 = 300;
    let redis = RedisServer::start();
    let url = redis.url();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let trusting = Server::with_both(policy(&url, "4/h"), |config| {
            config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        });
        servers.push(trusting.await);
    }
    for server in &servers {
        until_figure(server, "zimcache_rate_limit_gateways", 2).await;
    }
    let mut clients = [servers[0].connect().await, servers[1].connect().await];
    let mut passed: HashMap<u32, u32> = HashMap::new();
    let from = |caller: u32| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + caller);
        format!("GET {LOOK_UP} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {address}\r\n\r\n")
    };
    for _ in 0..5 {
        for caller in 0..CALLERS {
            for client in &mut clients {
                client.send(from(caller)).await;
                let status = client.reply().await.status;
                *passed.entry(caller).or_default() += u32::from(status == 404);
            }
        }
    }
    let most = if all_errors(&servers).await > 0 {
        2 * 4
    } else {
        4 + 2
    };
    for (caller, passed) in &passed {
        assert!((4..=most).contains(passed), "{caller}: {passed}");
    }
}

#[tokio::test]
async fn limits_and_the_redis_itself_change_while_serving() {
    let (first, second) = (RedisServer::start(), RedisServer::start());
    let server = Server::with_policy(policy(&first.url(), "3/h")).await;
    until_up(&server, true).await;
    let status = async || server.get(LOOK_UP).await.status;
    for expected in [404, 404, 404, 429] {
        assert_eq!(status().await, expected);
    }
    server
        .gateway
        .set_policy(policy(&first.url(), "3/h burst 5"));
    assert_eq!(figure(&server, "zimcache_rate_limit_redis_up").await, 1);
    let begun = Instant::now();
    let mut passed = 0;
    while passed < 2 {
        assert!(begun.elapsed() < PATIENCE, "{passed} of two tokens more");
        passed += u32::from(status().await == 404);
    }
    assert_eq!(status().await, 429, "and no full bucket");
    server
        .gateway
        .set_policy(policy(&second.url(), "3/h burst 5"));
    until_up(&server, true).await;
    assert_eq!(second.ask(&["EXISTS", "zimcache:{limits}:gateways"]), ["1"]);
    assert_eq!(
        status().await,
        429,
        "the other Redis is told what was used up"
    );
    let mut alone = policy("", "3/h burst 5");
    assert_eq!(alone.limits.redis, None);
    server.gateway.set_policy(alone);
    assert_eq!(status().await, 429, "what was used up stays so");
    alone = policy("", "100/h");
    alone.limits.reads = None;
    server.gateway.set_policy(alone);
    assert_eq!(status().await, 404);
}

#[tokio::test]
async fn a_redis_that_is_away_opens_nothing_but_the_limits() {
    let (mut policy, tokens) = guarded("default");
    let url = format!("redis://127.0.0.1:{}", free_port());
    policy.limits.redis = url.parse().ok();
    policy.limits.per_token = "100/h".parse().ok();
    let server = Server::with_policy(policy).await;
    let header = format!("Authorization: Bearer {}", tokens.read);
    for (headers, status) in [
        (&[][..], 401),
        (&["Authorization: Bearer zim_nobody_0000"], 401),
        (&[&*header], 404),
    ] {
        let reply = server.call("GET", LOOK_UP, headers, b"").await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    let written = server.call("PUT", LOOK_UP, &[&header], b"x").await;
    assert_eq!(written.status, 403);
    assert!(errors(&server, "connection").await >= 1);
}

#[tokio::test]
async fn the_page_tells_of_redis_only_where_there_is_one() {
    let free = Server::with_policy(policy("", "10/s")).await;
    let page = free.get("/metrics").await.text();
    assert!(!page.contains("zimcache_rate_limit_"), "{page}");
}

#[tokio::test]
async fn sentinels_lead_to_the_master_and_to_the_one_after_it() {
    let mut master = RedisServer::start();
    let replica = RedisServer::with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let sentinel = RedisServer::sentinel(&master);
    let nobody = free_port();
    let url = format!(
        "redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{}/zim",
        sentinel.port
    );
    let server = Server::with_policy(policy(&url, "10/s")).await;
    until_up(&server, true).await;
    let key = ["EXISTS", "zimcache:{limits}:gateways"];
    assert_eq!(master.ask(&key), ["1"]);
    let begun = Instant::now();
    while sentinel.ask(&["SENTINEL", "replicas", "zim"]).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the sentinel finds no replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    master.kill();
    until_up(&server, false).await;
    until_up(&server, true).await;
    assert_eq!(replica.ask(&["ROLE"])[0], "master");
}
