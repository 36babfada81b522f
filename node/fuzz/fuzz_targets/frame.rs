//! Fuzzes `decoders::frame`, where it is said what must hold. The committed corpus is replayed by the store's tests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zimcache_node::testing::decoders::frame(data));
