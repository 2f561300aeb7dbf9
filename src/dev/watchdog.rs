//! Ends the nodes of a temporary pool when the sidecar dies without a chance to do so itself (`kill -9`, a crash).
//!
//! The idea: a shell reads from a pipe whose other end only the sidecar holds, so the kernel closes it however the
//! sidecar ends. The shell then kills what runs in the pool's directory and removes it. A pool in a directory that the
//! user named has no watchdog: there the nodes stay, as they would in production, and the next start finds them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::DevError;

/// `$1` is the pool's directory. As in `server.rs`, a pid counts only if its process works in the node's directory.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r _
for node in "$1"/node*; do
    pid=$(cat "$node/redis.pid" 2>/dev/null) || continue
    [ "$(readlink "/proc/$pid/cwd")" = "$node" ] && kill -KILL "$pid"
done
rm -rf -- "$1"
"#;

/// The shell that waits for our end.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    /// Closed by dropping it.
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts the watchdog of the pool in `dir`, a directory that is removed in the end.
    pub(super) fn start(dir: &Path) -> Result<Self, DevError> {
        let spawned = Command::new("sh")
            .args(["-c", SCRIPT, "ringfence-watchdog"])
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            // It must not keep open what somebody reads from the sidecar until its end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut shell = spawned.map_err(|source| DevError::Spawn {
            program: "sh",
            source,
        })?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.pipe = None;
        let _ended = self.shell.wait();
    }
}
