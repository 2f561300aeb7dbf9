//! The arguments of the commands that operate a running sidecar.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand};

use crate::config::NodeAddress;

/// Operate a sidecar that runs.
#[derive(Debug, Subcommand)]
pub enum Operate {
    /// See and change the nodes of the pool.
    Nodes(Nodes),
    /// See and steer the moves of partitions between nodes.
    Ring(Ring),
    /// Compare the copies of every key, and repair what differs.
    Verify(Verify),
}

/// Which sidecar, and how to print what it says.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The sidecar's admin port.
    #[arg(long, global = true, value_name = "ADDR", env = "RINGFENCE_ADMIN", default_value = "127.0.0.1:6380",
          value_parser = admin_address)]
    pub admin: String,
    /// Print the sidecar's JSON as it is; when watching, a document for each change.
    #[arg(long, global = true)]
    pub json: bool,
}

fn admin_address(text: &str) -> Result<String, String> {
    match text.parse::<NodeAddress>() {
        Ok(address @ NodeAddress::Tcp { .. }) => Ok(address.to_string()),
        _ => Err("write the host and port of the sidecar's listen.admin, such as 127.0.0.1:6380".to_owned()),
    }
}

fn node_address(text: &str) -> Result<String, String> {
    let address = text.parse::<NodeAddress>().map_err(|error| error.to_string())?;
    Ok(address.to_string())
}

/// See and change the nodes of the pool.
#[derive(Debug, Args)]
pub struct Nodes {
    /// Which sidecar.
    #[command(flatten)]
    pub target: Target,
    /// What to do.
    #[command(subcommand)]
    pub command: NodesCommand,
}

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// Show how each node is.
    List,
    /// Add a server to the pool, and move partitions to it.
    Add(Add),
    /// Move everything away from a node, so that it can be removed.
    Drain(Drain),
    /// Take a node that holds nothing out of the pool.
    Remove(Name),
    /// Change a node's weight or zone, or take back that it is drained.
    Set(Set),
}

/// A node.
#[derive(Debug, Args)]
pub struct Name {
    /// The node's name.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
}

/// Whether to do it, and whether to wait until it is done.
#[derive(Debug, Default, Args)]
pub struct Doing {
    /// Only say what would be moved.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Then watch until everything is moved.
    #[arg(long)]
    pub wait: bool,
}

/// Adding a node.
#[derive(Debug, Args)]
pub struct Add {
    /// Where the server listens: host:port or unix:/path.
    #[arg(value_parser = node_address)]
    pub address: String,
    /// The name it gets in this pool.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub name: String,
    /// Its share of the partitions, compared with the other nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
    /// What fails together with it.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub zone: Option<String>,
    /// The account that the sidecar uses there; it needs a password.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// A file with that account's password [default: the variable RINGFENCE_NODE_PASSWORD, if it is set].
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Whether, and how long.
    #[command(flatten)]
    pub doing: Doing,
}

/// Draining a node.
#[derive(Debug, Args)]
pub struct Drain {
    /// Which node.
    #[command(flatten)]
    pub node: Name,
    /// Whether, and how long.
    #[command(flatten)]
    pub doing: Doing,
}

/// Changing a node.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["weight", "zone", "no_zone", "undrain"])))]
pub struct Set {
    /// Which node.
    #[command(flatten)]
    pub node: Name,
    /// Its share of the partitions, compared with the other nodes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: Option<u32>,
    /// What fails together with it.
    #[arg(long, conflicts_with = "no_zone", value_parser = NonEmptyStringValueParser::new())]
    pub zone: Option<String>,
    /// It is in no zone.
    #[arg(long)]
    pub no_zone: bool,
    /// Give it partitions again after a drain.
    #[arg(long)]
    pub undrain: bool,
    /// Whether, and how long.
    #[command(flatten)]
    pub doing: Doing,
}

/// See and steer the moves of partitions.
#[derive(Debug, Args)]
pub struct Ring {
    /// Which sidecar.
    #[command(flatten)]
    pub target: Target,
    /// What to do.
    #[command(subcommand)]
    pub command: RingCommand,
}

/// What can be done with moves.
#[derive(Debug, Subcommand)]
pub enum RingCommand {
    /// Show what is still to be moved.
    Plan,
    /// Show how far the moves are.
    Status(Watch),
    /// Stop moving; what is half copied is kept.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Take the change that is being made back: what has moved goes back, and what has not stays.
    Cancel,
}

/// Looking once or again and again.
#[derive(Debug, Args)]
pub struct Watch {
    /// Keep looking until it is settled.
    #[arg(long)]
    pub watch: bool,
}

/// Compare the copies of every key.
#[derive(Debug, Args)]
pub struct Verify {
    /// Which sidecar.
    #[command(flatten)]
    pub target: Target,
    /// Most keys to compare each second [default: the sidecar's own].
    #[arg(long, value_name = "KEYS_PER_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Keep looking until it is done.
    #[arg(long)]
    pub watch: bool,
    /// Start nothing, show how far it is.
    #[arg(long, conflicts_with = "rate")]
    pub status: bool,
    /// Stop it.
    #[arg(long, conflicts_with_all = ["rate", "watch", "status"])]
    pub stop: bool,
}
