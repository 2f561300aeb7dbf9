"""Node."""

import subprocess
import time
from pathlib import Path

import pytest

NODE = Path(__file__).with_name("node")
pytestmark = pytest.mark.slow


# Their scripts make names of keys that they do not declare. A pool with several worker threads, or more nodes than copies, must know
# that these live together: by a hash tag, which both take as a prefix, or by the profile, which says so of the keys of one queue.
BULL = {"threads": {"PREFIX": "{bull}"}, "own": {"ONE_QUEUE": "1"}, "own-killed": {"ONE_QUEUE": "1"}}


def run(flow, script, timeout_s=75, environment={}):
    """A flow in JavaScript: it says `halfway`, waits for a line, and in the end says `passed` and how many jobs."""
    process = flow.spawn("node", NODE / script, flow.port, stdin=subprocess.PIPE, **environment.get(flow.server.kind, {}))
    end = time.monotonic() + timeout_s
    while process.poll() is None:
        assert time.monotonic() < end, f"{script} is not done after {timeout_s} s"
        if process.stdin and "halfway" in process.log.read_text():
            flow.halfway()
            process.stdin.write(b"go\n")
            process.stdin.close()
            process.stdin = None
        time.sleep(0.02)
    said = process.log.read_text().split()
    assert process.returncode == 0 and "passed" in said
    flow.jobs = int(said[said.index("passed") + 1])


@pytest.mark.profile("bullmq")
def test_bullmq(flow):
    """BullMQ: delays, retries, events, priorities, flows, limits."""
    run(flow, "bullmq.mjs", environment=BULL)


def test_bull(flow):
    """Bull: delays, retries, failures."""
    run(flow, "bull.mjs", environment=BULL)


def test_bee_queue(flow):
    """Bee-Queue: delays, retries, progress."""
    run(flow, "bee-queue.mjs")


def test_ioredis(flow):
    """ioredis: pipelines, scripts, queues, streams, subscriptions."""
    run(flow, "ioredis.mjs")


def test_node_redis(flow):
    """node-redis: the same, RESP 2 and 3."""
    run(flow, "node-redis.mjs")
