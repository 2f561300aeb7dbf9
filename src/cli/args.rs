//! The whole command line, and the arguments of the commands that are a sidecar themselves.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{EXIT_USAGE, Operate};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the program's arguments.
    ///
    /// # Errors
    /// The code to exit with, when help was asked for (0) or the arguments are wrong (64); what there is to say has been printed.
    pub fn read() -> Result<Self, u8> {
        Self::try_parse().map_err(|error| {
            // Where not even this can be printed, the exit code is all there is.
            let _unprinted = error.print();
            exit_code(&error)
        })
    }
}

/// Help and version are no mistakes.
pub(super) fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { EXIT_USAGE } else { 0 }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a pool.
    Serve {
        /// The configuration.
        #[arg(long, default_value = "proxy.toml")]
        config: PathBuf,
        /// Take this profile instead of pool.profile.
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
    /// Print every mistake of a configuration.
    Check {
        /// The configuration.
        #[arg(long, default_value = "proxy.toml")]
        config: PathBuf,
    },
    /// Print where a command goes, and why, by a profile.
    Explain(Explain),
    /// Start local redis-servers and serve them, for trying things out.
    Dev(Dev),
    /// Operate a sidecar that runs.
    #[command(flatten)]
    Operate(Operate),
}

/// A pool on this machine.
#[derive(Debug, clap::Args)]
pub struct Dev {
    /// How many redis-servers.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// R: copies of everything [default: 3, or as many as there are nodes].
    #[arg(long)]
    pub replicas: Option<usize>,
    /// W: copies that acknowledge a write [default: the majority of R].
    #[arg(long)]
    pub write_quorum: Option<usize>,
    /// What is known of the driver: generic, zaqar, celery, rq, sidekiq, bullmq; fixed when the pool in DIR is made.
    #[arg(long, value_name = "NAME", default_value = "generic")]
    pub profile: String,
    /// Entries of a segment of a queue that the profile spreads over nodes [default: the profile's].
    #[arg(long, value_name = "N")]
    pub segment_len: Option<u64>,
    /// Slices of the key space; fixed when the pool in DIR is made.
    #[arg(long, default_value_t = 256)]
    pub partitions: u16,
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:6379")]
    pub listen: SocketAddr,
    /// The admin port.
    #[arg(long, default_value = "127.0.0.1:6380")]
    pub admin: SocketAddr,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Where the servers keep their data [default: a temporary directory, removed at the end].
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Let the nodes answer DEBUG, for comparing their contents.
    #[arg(long)]
    pub enable_debug: bool,
}

/// A command that is only looked at.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// A configuration: its profile, partitions and nodes count [default: none of it is needed].
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The profile [default: pool.profile of the configuration, or generic].
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
