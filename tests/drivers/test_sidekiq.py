"""Sidekiq."""

import shutil
import subprocess

import pytest

from servers import wait_until

# What it is like to be configured has changed with Sidekiq 7.
VERSION = "Sidekiq 6."


def installed():
    sidekiq = shutil.which("sidekiq")
    if not sidekiq or not shutil.which("ruby"):
        return "nothing"
    return subprocess.run([sidekiq, "--version"], capture_output=True, text=True).stdout.strip()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.profile("sidekiq"),
    pytest.mark.skipif(
        not (found := installed()).startswith(VERSION),
        reason=f"needs {VERSION}x (Debian 12: apt-get install ruby-sidekiq), found {found}",
    ),
]


def test_sidekiq(flow):
    """queues, schedule, retries, the dead, processes and counts."""
    # Two queues, in their order.
    flow.spawn("sidekiq", "-e", "production", "-r", "./sidekiq_jobs.rb", "-c", "5", "-q", "default", "-q", "low")
    client = flow.spawn("ruby", "sidekiq_flow.rb", stdin=subprocess.PIPE)
    said = lambda: client.log.read_text().split()
    wait_until(lambda: "halfway" in said() or client.poll() is not None, "the client is half through", 30)
    flow.halfway()
    client.stdin.write(b"go\n")
    client.stdin.close()
    assert client.wait(75) == 0 and "passed" in said()
    flow.jobs = int(said()[said().index("passed") + 1])
