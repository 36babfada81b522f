//! Wire tests: raw bytes in, raw bytes out, against a gateway over the store in RAM on a port of its own.
//!
//! One module per dialect or concern; one binary for all. Nothing here waits for luck: every wait is for an event, and
//! the timeouts that are tested are real and short.

#[cfg(test)]
mod actions_cache;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod bazel_http;
#[cfg(test)]
mod builder;
#[cfg(test)]
mod ccache;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod gradle;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod maven;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod metro;
#[cfg(test)]
mod moon;
#[cfg(test)]
mod nx;
#[cfg(test)]
mod page;
#[cfg(test)]
mod polykit;
#[cfg(test)]
mod redis_server;
#[cfg(test)]
mod secret;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod shared_limits;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod turborepo;
#[cfg(test)]
mod webdav;
#[cfg(test)]
mod zim_objects;
