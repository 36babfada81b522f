//! Flags of `zim cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServerArgs;

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  zim cluster status --url http://gateway:8080
  zim cluster status --watch
  zim cluster status --json";

pub(super) const DRAIN_EXAMPLES: &str = "\
The node's share goes to the others first; the command returns when nothing depends on it any more.

Examples:
  zim cluster drain node-2 --ring ring.json --url http://gateway:8080
  zim cluster drain node-2 --ring ring.json --no-wait";

pub(super) const RING_EXAMPLES: &str = "\
The ring is a file that gateways and nodes look at; only these commands change it, one at a time.

Examples:
  zim cluster ring init --ring ring.json --replicas 2 node-0=http://10.0.0.1:7400 node-1=http://10.0.0.2:7400
  zim cluster ring show --ring ring.json
  zim cluster ring join --ring ring.json node-2=http://10.0.0.3:7400,zone=b
  zim cluster ring weigh --ring ring.json node-2=200
  zim cluster ring lost --ring ring.json node-1
  zim cluster ring close --ring ring.json";

/// What `zim cluster` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show the nodes and how they are
    #[command(after_help = STATUS_EXAMPLES)]
    Status(ClusterStatusArgs),
    /// Hand everything that a node has to the others, and take it out of the ring
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Show and change the ring
    #[command(subcommand, after_help = RING_EXAMPLES)]
    Ring(RingCommand),
}

/// What `zim cluster ring` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum RingCommand {
    /// Print the ring document
    Show(ShowArgs),
    /// Make the first ring
    Init(InitArgs),
    /// Take nodes in
    Join(ChangeArgs),
    /// Change the shares of nodes
    Weigh(ChangeArgs),
    /// Declare nodes lost for good, with their disks
    Lost(ChangeArgs),
    /// Say of nodes that were declared lost that they are back
    Found(ChangeArgs),
    /// End the change of a placement, when every node has handed over
    Close(CloseArgs),
}

/// Flags of `zim cluster status`.
#[derive(Debug, Args)]
pub(crate) struct ClusterStatusArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again every second
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
}

/// The file of the ring.
#[derive(Debug, Args)]
pub(crate) struct RingFileArgs {
    /// File of the ring
    #[arg(long = "ring", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Whether to wait until a change has taken place.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Return at once; zim cluster ring close ends the change later
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Flags of `zim cluster drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Which nodes
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    #[command(flatten)]
    pub(crate) ring: RingFileArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `zim cluster ring show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// File of the ring; without it a gateway is asked
    #[arg(long = "ring", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Flags of `zim cluster ring init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Nodes: ID=ADDRESS, then ,zone=ZONE and ,weight=N where wanted
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    /// Copies of everything
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) replicas: u32,
    #[command(flatten)]
    pub(crate) ring: RingFileArgs,
}

/// Flags of what changes nodes.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Nodes: to join ID=ADDRESS, then ,zone=ZONE and ,weight=N where wanted; to weigh ID=N; else ID
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    #[command(flatten)]
    pub(crate) ring: RingFileArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Flags of `zim cluster ring close`.
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    #[command(flatten)]
    pub(crate) ring: RingFileArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
