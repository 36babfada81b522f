//! The operator's parts against a real API server: what only that can tell.
//!
//! Each test starts one of its own (see `server`), for tests are processes of their own; so a test has a whole story.

#[cfg(test)]
mod definition;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod server;
#[cfg(test)]
mod volumes;
