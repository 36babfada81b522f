//! The link over real sockets: each call there and back, values both ways, and what goes wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod calls;
mod fake;
mod faults;
mod pair;
mod secure;
mod small;
mod values;
