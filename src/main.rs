//! The command line.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where the program speaks to its user"
)]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ringfence::cli::{self, Cli, Command, Dev, EXIT_USAGE, Pace, Screen};
use ringfence::config::Config;
use ringfence::dev::{DevOptions, LocalPool};
use ringfence::serve::{self, Extras, ServeError};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Another sidecar has taken the pool over: a supervisor should not start this one again by itself.
const EXIT_FENCED: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    match cli.command {
        Command::Check { config } => match Config::load(&config) {
            Ok(config) => {
                println!("the configuration is sound: {} nodes", config.nodes.len());
                ExitCode::SUCCESS
            }
            Err(mistakes) => complain(&mistakes),
        },
        Command::Serve { config, profile } => match Config::load_with(&config, profile.as_deref()) {
            Ok(config) => run(async {
                raise_open_files(&config);
                serve::run(config, Extras::default(), end_signal())
                    .await
                    .map_err(Into::into)
            }),
            Err(mistakes) => complain(&mistakes),
        },
        Command::Explain(asked) => match cli::explain(&asked) {
            Ok(told) => {
                print!("{told}");
                ExitCode::SUCCESS
            }
            Err(mistakes) => complain(&mistakes),
        },
        Command::Dev(options) => run(dev(options)),
        Command::Operate(command) => {
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            let mut screen = Screen::new(&mut out, &mut err).with_bar_on_terminal();
            ExitCode::from(cli::run(&command, &mut screen, &Pace::default()))
        }
    }
}

fn complain(mistakes: &[ringfence::config::Mistake]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("{mistake}");
    }
    ExitCode::from(EXIT_USAGE)
}

/// Runs the program's main task and says how it ended.
fn run(task: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event loop could not be made")
        .and_then(|runtime| runtime.block_on(task));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("ringfence: {line}");
            }
            match error.downcast_ref::<ServeError>() {
                Some(ServeError::Fenced(_)) => ExitCode::from(EXIT_FENCED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn dev(options: Dev) -> anyhow::Result<()> {
    let replicas = options.replicas.unwrap_or(options.nodes.min(3));
    let quorum = options.write_quorum.unwrap_or(replicas / 2 + 1);
    let ended = end_signal();
    tokio::pin!(ended);
    let starting = DevOptions {
        nodes: options.nodes,
        dir: options.dir,
        enable_debug: options.enable_debug,
    };
    let pool = tokio::select! {
        pool = LocalPool::start(&starting) => Arc::new(pool?),
        () = &mut ended => return Ok(()),
    };
    let nodes: String = pool
        .nodes()
        .iter()
        .map(|node| {
            format!(
                "[[nodes]]\nname = {:?}\naddress = {:?}\n",
                node.name, node.address
            )
        })
        .collect();
    let text = format!(
        "threads = {}\n[listen]\ntcp = \"{}\"\nadmin = \"{}\"\n[pool]\nname = \"dev\"\nreplicas = {replicas}\n\
         write_quorum = {quorum}\npartitions = {}\nprofile = {:?}\n{}{nodes}",
        options.threads,
        options.listen,
        options.admin,
        options.partitions,
        options.profile,
        options
            .segment_len
            .map(|len| format!("segment_len = {len}\n"))
            .unwrap_or_default()
    );
    let result = match Config::parse(&text) {
        Ok(config) => {
            for node in pool.nodes() {
                info!(
                    node = node.name,
                    address = node.address,
                    pid = node.pid,
                    "redis-server started"
                );
            }
            let of = pool.clone();
            let extras = Extras {
                pid_of: Some(Box::new(move |name| of.pid_of(name))),
            };
            raise_open_files(&config);
            serve::run(config, extras, ended)
                .await
                .map_err(anyhow::Error::from)
        }
        Err(mistakes) => {
            let lines: Vec<String> = mistakes
                .iter()
                .map(|m| format!("{}: {}", m.setting, m.message))
                .collect();
            Err(anyhow::anyhow!("{}", lines.join("\n")))
        }
    };
    pool.stop().await;
    result
}

/// Ctrl-C, or a supervisor's `SIGTERM`.
async fn end_signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    info!("ending");
}

/// Open files beside clients: connections to nodes, listeners, those of the admin port.
const OTHER_FILES: u64 = 1024;

/// Every client is an open file: takes as many as the system allows, and says if that is not enough.
fn raise_open_files(config: &Config) {
    let clients_max = config.limits.clients_max as u64;
    // One that is passed on is two.
    let files_of_clients = clients_max * (1 + u64::from(config.listen.peer.is_some()));
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let raised = soft >= hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = if raised { hard } else { soft };
    if files < files_of_clients + OTHER_FILES {
        info!(
            files,
            clients_max,
            "the system allows this process fewer open files than limits.clients_max needs: clients beyond them will have to wait. Allow more \
             (LimitNOFILE of systemd, ulimit -n), or lower the setting"
        );
    }
}
