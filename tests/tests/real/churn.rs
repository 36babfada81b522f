//! One gigabyte of blobs that nobody asks for again, written beside a real client: the client must not notice.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, ensure};
use zimcache_tests::content::{self, Random};
use zimcache_tests::environment::scaled;
use zimcache_tests::http::Connection;

const CHURN_BYTES: u64 = 1_000_000_000;
const CONNECTIONS: u64 = 4;

/// A running churn.
pub(crate) struct Churn {
    writers: Vec<JoinHandle<Result<u64>>>,
}

impl Churn {
    /// Starts writing 1 GB (times the scale) of blobs of up to 8 MiB, different for each `name`.
    pub(crate) fn start(address: SocketAddr, name: &str) -> Churn {
        let seed = name
            .bytes()
            .fold(0_u64, |seed, byte| seed * 31 + u64::from(byte));
        let write = move |number: u64| {
            let mut random = Random::new(seed ^ (number << 48));
            let mut connection = Connection::open(address)?;
            let mut written = 0;
            while written < scaled(CHURN_BYTES) / CONNECTIONS {
                let length = 1 + random.below(8 << 20) as usize;
                let body = content::body(random.next_u64(), length);
                let path = format!("/cas/{}", content::sha256(&body));
                let response = connection.request("PUT", &path, &[], Some(&body))?;
                ensure!(response.status == 200, "churn: {}", response.status);
                written += length as u64;
            }
            Ok(written)
        };
        let start = |number| std::thread::spawn(move || write(number));
        Churn {
            writers: (0..CONNECTIONS).map(start).collect(),
        }
    }

    /// Waits for its end; the bytes written.
    pub(crate) fn finish(self) -> Result<u64> {
        let mut written = 0;
        for writer in self.writers {
            written += writer.join().map_err(|_| anyhow!("the churn panicked"))??;
        }
        Ok(written)
    }
}
