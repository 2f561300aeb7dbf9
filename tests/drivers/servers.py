"""What the drivers talk to: one plain redis-server (the control), or a pool behind Ringfence."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import redis

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "demo"))

from agreement import compare_nodes  # noqa: E402  (lives beside the demo, which compares nodes too)
from sidecar import Sidecar, free_ports  # noqa: E402

DOWN_S = 1
PARTITIONS = int(os.environ.get("PARTITIONS", 256))


def wait_until(condition, what, timeout_s=20):
    """The first true answer of `condition`."""
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(0.01)
    return answer


def binary():
    """RINGFENCE_BIN, or what was built last."""
    if chosen := os.environ.get("RINGFENCE_BIN"):
        return Path(chosen)
    built = [path for name in ["debug", "release"] if (path := ROOT / "target" / name / "ringfence").exists()]
    if not built:
        raise AssertionError("there is no target/*/ringfence: run `cargo build`, or set RINGFENCE_BIN")
    return max(built, key=lambda path: path.stat().st_mtime)


class PlainRedis:
    """What passes here must pass through the proxy."""

    def __init__(self, directory):
        (self.port,) = free_ports(1)
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        wait_until(self.answers, "redis-server answers", 10)

    def answers(self):
        try:
            return redis.Redis(port=self.port).ping()
        except redis.ConnectionError:
            return False

    def disturb(self):
        """A single Redis is not disturbed: it would lose what it was doing, and with it the point of the control."""

    def commands(self):
        """How many commands have been executed so far."""
        return redis.Redis(port=self.port).info("stats")["total_commands_processed"]

    def check(self):
        pass

    def stop(self):
        self.process.kill()
        self.process.wait()


class Pool:
    """Nodes and the sidecar; with `killing`, a node dies in the middle of each flow, and comes back."""

    def __init__(self, directory, threads, killing, nodes=3, replicas=3, arguments=(), servers=None):
        self.directory = directory
        self.replicas = replicas
        self.killing = killing
        self.helper = None
        self.log_lines = 0
        options = SimpleNamespace(binary=binary(), nodes=nodes, replicas=replicas, threads=threads, partitions=PARTITIONS)
        self.sidecar = Sidecar(options, directory, *arguments, servers=servers)
        self.sidecar.start()
        wait_until(lambda: self.sidecar.alive() and self.sidecar.ready(), "the sidecar is ready")
        wait_until(self.settled, "all nodes are in sync")
        self.names = [node["name"] for node in self.sidecar.nodes()]
        self.port = self.sidecar.port

    def settled(self):
        """Every node has everything."""
        nodes = self.sidecar.nodes()
        return nodes and all(
            node["state"] == "in_sync" and node["in_sync"] == node["partitions"] and not node.get("lag_ops")
            for node in nodes
        )

    def disturb(self):
        """kill -9 for a node, each in its turn; somebody starts it again after a second."""
        if self.killing:
            self.recovered()
            name = self.names[len(self.sidecar.killed) % len(self.names)]
            self.sidecar.kill(name)
            self.helper = threading.Timer(DOWN_S, self.sidecar.bring_back, [name])
            self.helper.start()

    def recovered(self):
        if self.helper:
            self.helper.join()
            self.helper = None
        wait_until(self.settled, "all nodes are in sync again", 30)

    def commands(self):
        """How many commands the nodes have executed so far, of all of them together."""
        infos = (redis.Redis(port=int(node["address"].rsplit(":")[-1])).info("stats") for node in self.sidecar.nodes())
        return sum(info["total_commands_processed"] for info in infos)

    def check(self):
        """After a flow: everybody is back, all copies are the same, and the log has nothing to complain of."""
        self.sidecar.alive()
        self.recovered()
        # Keys that expire while they are read look different for a moment.
        end = time.monotonic() + 10
        while (differences := compare_nodes(self.sidecar.nodes(), self.replicas).faults) and time.monotonic() < end:
            time.sleep(0.2)
        assert not differences, "\n".join(differences)
        log = (self.directory / "sidecar.log").read_text(errors="replace").splitlines()
        new, self.log_lines = log[self.log_lines :], len(log)
        # A node that comes back may find a key expired that was there for the others; the key is repaired then, and said.
        alarming = ["panicked at"] if self.killing else ["panicked at", "WARN", "ERROR"]
        lines = [line for line in new if any(mark in line for mark in alarming)]
        assert not lines, "the sidecar logged:\n" + "\n".join(lines[-20:])

    def stop(self):
        if self.helper:
            self.helper.join()
        complaints = self.sidecar.stop()
        assert not complaints, complaints
