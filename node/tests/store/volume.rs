//! How much a row does: a number of seeds inside a time box, both scaled by the environment.

use std::{
    sync::{
        Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Panics on threads that belong to an engine; nobody else would notice them.
static ENGINE_PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics of engine threads from now on.
fn watch_engine_threads() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if name.starts_with("lane-") || name == "maintenance" {
                ENGINE_PANICS.fetch_add(1, Relaxed);
            }
            usual(info);
        }));
    });
}

/// Reads a variable that only tests know.
#[allow(
    clippy::disallowed_methods,
    reason = "volumes of tests come from the environment, not from configuration"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How many times the usual volume is wanted.
pub(crate) fn scale() -> f64 {
    let text = variable("ZIMCACHE_TEST_SCALE");
    text.map_or(1.0, |text| {
        text.parse().expect("ZIMCACHE_TEST_SCALE is a number")
    })
}

/// A count, scaled; at least one.
pub(crate) fn scaled(count: u64) -> u64 {
    #[allow(clippy::cast_sign_loss, reason = "scales are positive")]
    let scaled = (count as f64 * scale()) as u64;
    scaled.max(1)
}

/// A row of the test plan at work.
pub(crate) struct Row {
    name: &'static str,
    wanted: u64,
    done: u64,
    started: Instant,
    limit: Duration,
    only: Option<u64>,
}

impl Row {
    /// A row that wants so many cases, and takes at most so many seconds for them.
    pub(crate) fn new(name: &'static str, wanted: u64, box_seconds: u64) -> Row {
        watch_engine_threads();
        let only = variable("ZIMCACHE_TEST_SEED");
        Row {
            name,
            wanted: scaled(wanted),
            done: 0,
            started: Instant::now(),
            limit: Duration::from_secs(box_seconds).mul_f64(scale().max(1.0)),
            only: only.map(|text| text.parse().expect("ZIMCACHE_TEST_SEED is a number")),
        }
    }

    /// Runs cases until there are enough or the time is over. A case returns what went wrong.
    ///
    /// # Panics
    /// When a case fails, after printing how to replay it.
    pub(crate) fn run(mut self, case: impl Fn(u64) -> Result<(), String>) {
        if let Some(seed) = self.only {
            return self.one(seed, &case);
        }
        while self.done < self.wanted && self.started.elapsed() < self.limit {
            let seed = self.done;
            self.one(seed, &case);
            self.done += 1;
        }
        self.report("cases");
    }

    fn one(&self, seed: u64, case: &impl Fn(u64) -> Result<(), String>) {
        let panics = ENGINE_PANICS.load(Relaxed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(seed)));
        let why = match outcome {
            Ok(Ok(())) if ENGINE_PANICS.load(Relaxed) == panics => return,
            Ok(Ok(())) => "a thread of the engine panicked, see above".to_owned(),
            Ok(Err(why)) => why,
            Err(_) => "it panicked, see above".to_owned(),
        };
        println!("SEED={seed} COMMIT={}", commit());
        println!(
            "replay: ZIMCACHE_TEST_SEED={seed} cargo test -p zimcache-node --test store {}",
            self.test()
        );
        panic!("{}, seed {seed}: {why}", self.name);
    }

    /// Says what was done.
    pub(crate) fn report(&self, unit: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let short = if self.done < self.wanted {
            " (time is over)"
        } else {
            ""
        };
        println!("{}: {} {unit}, {seconds:.1} s{short}", self.name, self.done);
    }

    fn test(&self) -> String {
        std::thread::current()
            .name()
            .unwrap_or(self.name)
            .to_owned()
    }
}

fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    output.map_or_else(
        |_| "unknown".into(),
        |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
    )
}
