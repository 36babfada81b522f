//! The limit on open files: a store keeps its segments open, a gateway one socket per connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: segments (a store of 100 GB has some 400, each opened twice), listeners, the runtime's.
const BESIDE_CONNECTIONS: u64 = 1024;

/// Raises this process's limit as far as the system lets it; a warning when that is too little for `connections`.
pub(super) fn raise_limit(connections: usize) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let needed = connections as u64 + BESIDE_CONNECTIONS;
    let allowed = in_force.filter(|allowed| *allowed < needed)?;
    Some(format!(
        "warning: this process may open {allowed} files, and {connections} connections beside a store may need \
         {needed}; raise the limit (ulimit -n) or lower --max-connections"
    ))
}
