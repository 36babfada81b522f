//! The link over real sockets: each call there and back, values both ways, and what goes wrong.

mod calls;
mod fake;
mod faults;
mod pair;
mod secure;
mod values;
