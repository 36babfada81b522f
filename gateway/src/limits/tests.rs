//! The limiter as a whole: layers, memory, speed.

use std::net::Ipv6Addr;

use super::*;

/// A limiter that shares nothing.
fn alone(config: &LimitsConfig, before: Option<&Limiter>) -> Option<Limiter> {
    Limiter::new(config, before, || unreachable!("nothing is shared"))
}

fn limiter(change: impl FnOnce(&mut LimitsConfig)) -> Limiter {
    let mut config = LimitsConfig::default();
    change(&mut config);
    alone(&config, None).unwrap()
}

fn rate(text: &str) -> Option<zimcache_config::Rate> {
    text.parse().ok()
}

fn v4(bits: u32) -> Option<IpAddr> {
    IpAddr::from(bits.to_be_bytes()).into()
}

fn passes(limiter: &Limiter, address: Option<IpAddr>, class: Class) -> bool {
    limiter.meet(address, Instant::now()).pass(class).is_ok()
}

/// RAM that this process takes, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn without_a_rate_there_is_no_limiter() {
    assert!(alone(&LimitsConfig::default(), None).is_none());
}

#[test]
fn a_request_that_was_held_up_is_not_refused_for_what_came_after_it() {
    let limiter = limiter(|config| config.per_address = rate("1000/s"));
    let began = Instant::now();
    let held_up = limiter.meet(v4(1), began);
    let later = limiter.meet(v4(1), began + Duration::from_secs(5));
    assert!(later.pass(Class::Write).is_ok());
    assert!(held_up.pass(Class::Write).is_ok());
}

#[test]
fn each_layer_counts_for_itself() {
    let limiter = limiter(|config| {
        config.global = rate("5/h");
        config.per_address = rate("3/h");
        config.writes = rate("1/h");
    });
    let (one, other, third) = (v4(1), v4(2), v4(3));
    assert!(passes(&limiter, one, Class::Write));
    assert!(!passes(&limiter, one, Class::Write), "one write an hour");
    assert!(passes(&limiter, one, Class::Read), "reads are apart");
    assert!(
        !passes(&limiter, one, Class::Read),
        "three requests of one address"
    );
    assert!(passes(&limiter, other, Class::Read));
    assert!(passes(&limiter, other, Class::Page));
    assert!(passes(&limiter, third, Class::Read));
    assert!(
        !passes(&limiter, third, Class::Read),
        "five of all together"
    );
}

#[test]
fn a_caller_over_its_own_limit_takes_nothing_from_everybody() {
    let limiter = limiter(|config| {
        config.global = rate("3/h");
        config.per_address = rate("1/h");
    });
    assert!(passes(&limiter, v4(1), Class::Read));
    for _ in 0..50 {
        assert!(!passes(&limiter, v4(1), Class::Read));
    }
    assert!(passes(&limiter, v4(2), Class::Read));
    assert!(passes(&limiter, v4(3), Class::Read));
}

#[test]
fn neighbours_in_a_v6_network_share_a_bucket() {
    let limiter = limiter(|config| config.per_address = rate("1/h"));
    let address = |bits: u128| Some(IpAddr::from(Ipv6Addr::from_bits(bits)));
    let network = 0x2001_0db8_u128 << 96;
    assert!(passes(&limiter, address(network | 1), Class::Read));
    assert!(!passes(&limiter, address(network | 2), Class::Read));
    assert!(passes(&limiter, address(network | 1 << 64), Class::Read));
    let mapped = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    assert!(passes(&limiter, Some(mapped.into()), Class::Read));
    assert!(!passes(&limiter, v4(0x7f00_0001), Class::Read));
}

#[test]
fn a_token_is_counted_wherever_it_comes_from() {
    let limiter = limiter(|config| config.per_token = rate("2/h"));
    let with_token = |bits, key| {
        limiter
            .meet(v4(bits), Instant::now())
            .pass_token(key)
            .is_ok()
    };
    assert!(with_token(1, 7));
    assert!(with_token(2, 7));
    assert!(!with_token(3, 7));
    assert!(with_token(3, 8));
}

#[test]
fn a_new_policy_keeps_the_buckets() {
    let mut config = LimitsConfig {
        per_address: rate("2/h"),
        ..LimitsConfig::default()
    };
    let first = alone(&config, None).unwrap();
    assert!(passes(&first, v4(1), Class::Read) && passes(&first, v4(1), Class::Read));
    let same = alone(&config, Some(&first)).unwrap();
    assert!(!passes(&same, v4(1), Class::Read));
    config.per_address = rate("2/h burst 3");
    let wider = alone(&config, Some(&same)).unwrap();
    assert!(passes(&wider, v4(1), Class::Read), "one token more");
    assert!(!passes(&wider, v4(1), Class::Read), "and no full bucket");
    config.max_callers = 1_000;
    let smaller = alone(&config, Some(&wider)).unwrap();
    assert!(passes(&smaller, v4(1), Class::Read));
}

#[test]
fn callers_that_fail_get_a_smaller_share_and_refusals_do_not_count_as_failures() {
    let limiter = limiter(|config| config.per_address = rate("100/s burst 1"));
    let start = Instant::now();
    let mut headers = HeaderMap::new();
    let wait_after = |status, begin: u64, headers: &mut HeaderMap| {
        for second in begin + 1..=begin + 200 {
            let admission = limiter.meet(v4(status), start + Duration::from_secs(second));
            assert!(admission.pass(Class::Read).is_ok());
            admission.answered(StatusCode::from_u16(status as u16).unwrap(), false, headers);
        }
        let late = start + Duration::from_secs(begin + 200);
        let refused = || match limiter.meet(v4(status), late).pass(Class::Read) {
            Err(Error::RateLimited { retry_after }) => retry_after,
            other => panic!("{other:?}"),
        };
        let first = refused();
        assert_eq!(first, refused());
        first.as_secs_f64()
    };
    let good = wait_after(404, 0, &mut headers);
    let bad = wait_after(401, 900, &mut headers);
    assert!((0.009..=0.011).contains(&good), "{good}");
    assert!(bad > 1.7 * good && bad < 2.1 * good, "{bad} {good}");
}

#[test]
fn the_tightest_limit_is_told_on_every_answer() {
    let limiter = limiter(|config| {
        config.global = rate("1000/s burst 10000");
        config.per_address = rate("10/s burst 100");
    });
    let admission = limiter.meet(v4(1), Instant::now());
    admission.pass(Class::Read).unwrap();
    let mut headers = HeaderMap::new();
    admission.answered(StatusCode::OK, false, &mut headers);
    let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
    for family in ["ratelimit", "x-ratelimit"] {
        assert_eq!(number(&format!("{family}-limit")), 100);
        assert_eq!(number(&format!("{family}-remaining")), 99);
    }
    assert_eq!(number("ratelimit-reset"), 1);
    assert!(number("x-ratelimit-reset") >= SystemClock.now().0 / 1_000);
}

#[test]
fn a_million_addresses_take_no_more_memory_than_the_callers_remembered() {
    let limiter = limiter(|config| config.per_address = rate("10/s burst 100"));
    let before = resident();
    let at = Instant::now();
    for bits in 0..100_000 {
        limiter.meet(v4(bits), at).pass(Class::Read).unwrap();
    }
    let filled = resident();
    for bits in 100_000..1_000_000 {
        limiter.meet(v4(bits), at).pass(Class::Read).unwrap();
    }
    let after = resident();
    assert!(limiter.memory.callers.len() <= 100_000);
    let grown = after.saturating_sub(filled) >> 20;
    let taken = after.saturating_sub(before) >> 20;
    println!("{taken} MiB for 100 000 callers, {grown} MiB of it after 900 000 more");
    assert!(taken < 40, "{taken} MiB for 100 000 callers");
    assert!(grown < 16, "{grown} MiB more for 900 000 strangers");
}

#[test]
fn a_decision_takes_far_less_than_100_microseconds() {
    const DECISIONS: u32 = 200_000;
    let limiter = limiter(|config| {
        config.global = rate("1000000/s");
        config.per_address = rate("10/s burst 100");
        config.reads = rate("10/s burst 100");
    });
    let start = Instant::now();
    let mut passed = 0;
    for number in 0..DECISIONS {
        let admission = limiter.meet(v4(number % 5_000), start);
        passed += u32::from(admission.pass(Class::Read).is_ok());
    }
    let each = start.elapsed() / DECISIONS;
    println!("{each:?} for a decision of three layers");
    assert_eq!(
        passed, DECISIONS,
        "40 requests of each address fit its burst"
    );
    assert!(each < Duration::from_micros(100), "{each:?}");
}
