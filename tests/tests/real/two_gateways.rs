//! What a build client's suite needs for one more case: it builds through one gateway of a cluster, a node is killed, it
//! builds through the other gateway, the node is replaced by one with an empty disk, and it builds once more.
//!
//! Not here: what a build is, and what it has to have hit.

use std::time::Duration;

use anyhow::{Context as _, Result};
use zimcache_tests::cluster::{Cluster, Plan};

const READY: Duration = Duration::from_mins(1);

/// Builds once through the first gateway, then again beside a dead node, and again after it was replaced; `again` gets
/// what the first build gave.
pub(crate) fn while_a_node_is_replaced<B>(
    first: impl FnOnce(&str) -> Result<B>,
    again: impl Fn(&str, &B) -> Result<()>,
) -> Result<()> {
    let mut cluster = Cluster::start(&Plan::default())?;
    let url = |cluster: &Cluster, number: usize| -> Result<String> {
        Ok(format!("http://{}", cluster.gateways[number].address()?))
    };
    let built = first(&url(&cluster, 0)?).context("through the first gateway")?;
    cluster.nodes[0].kill_9()?;
    again(&url(&cluster, 1)?, &built).context("beside a dead node")?;
    cluster.nodes[0].wipe()?;
    cluster.nodes[0].start()?;
    cluster.nodes[0].wait_until_ready(READY)?;
    again(&url(&cluster, 0)?, &built).context("after the node was replaced")
}
