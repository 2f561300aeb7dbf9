//! Zaqar's own driver as a client: processes of Python that do its cycles (tests/drivers/zaqar/cycles.py).

use crate::BATCH;
use crate::servers::{Server, processes};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const SCRIPT: &str = "tests/drivers/zaqar/cycles.py";

/// Workers of one server, each with a queue of its own. They end with this value.
pub(crate) struct Workers(Vec<Worker>);

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Workers {
    /// Starts so many, and waits until they are ready.
    pub(crate) fn start(server: &Server, count: usize) -> Result<Workers> {
        let mut workers = Workers(
            (0..count)
                .map(|number| Worker::start(server, number))
                .collect::<Result<_>>()?,
        );
        for worker in &mut workers.0 {
            let said = worker.line()?;
            if said != "ready" {
                bail!("{SCRIPT} said {said:?}");
            }
        }
        Ok(workers)
    }

    /// All of them work for so long: how many messages went through their cycles.
    pub(crate) fn work(&mut self, time: Duration) -> Result<u64> {
        for worker in &mut self.0 {
            writeln!(worker.input, "{}", time.as_secs_f64())?;
        }
        let mut done = 0;
        for worker in &mut self.0 {
            done += worker.line()?.parse::<u64>()?;
        }
        Ok(done)
    }

    /// Processor time that they have used so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let all = processes()?;
        let used = |worker: &Worker| all.get(&worker.child.id()).map_or(0.0, |(_, seconds)| *seconds);
        Ok(self.0.iter().map(used).sum())
    }
}

impl Worker {
    fn start(server: &Server, number: usize) -> Result<Worker> {
        let environment = Path::new(".venv-zaqar");
        if !environment.exists() {
            bail!("Zaqar's driver is not installed: run `scripts/setup`, or leave it out with `--zaqar 0`");
        }
        // The two ways in which scripts/setup installs it.
        let python = environment.join("bin/python");
        let mut command = match python.exists() {
            true => Command::new(python),
            false => Command::new("python3"),
        };
        let mut child = command
            .env("PYTHONPATH", environment.join("packages"))
            .arg(SCRIPT)
            .arg(format!("redis://{}", server.address))
            .args([format!("q{number}"), BATCH.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("Python could not be started")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Worker {
            child,
            input: input.context("no input")?,
            output: BufReader::new(output.context("no output")?),
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{SCRIPT} ended: {:?}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
