//! Fuzzes `parsers::frames`, where it is said what must hold. The committed corpus is replayed by the gateway's tests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zimcache_gateway::parsers::frames(data));
