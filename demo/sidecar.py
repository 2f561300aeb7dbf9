"""The sidecar as a process, its admin port, and the nodes that it started: killing one and bringing it back."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time


class Failure(Exception):
    """The demo cannot go on."""


def free_ports(count):
    """Ports outside the range of outgoing connections, and of those that `ringfence dev` gives to nodes."""
    sockets = []
    for port in random.sample(range(12_000, 17_000), 500):
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", port))
            sockets.append(candidate)
        except OSError:
            candidate.close()
        if len(sockets) == count:
            break
    else:
        raise Failure("no free ports")
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Sidecar:
    """`ringfence dev` with everything it keeps in `directory`; `more` is what it is told beside the options."""

    def __init__(self, options, directory, *more, servers=None):
        # Where the redis-server is that is to be taken, if not the system's.
        self.environment = {**os.environ, **({"PATH": f"{servers}:{os.environ['PATH']}"} if servers else {})}
        self.binary = options.binary
        self.directory = directory
        self.port, self.admin_port = free_ports(2)
        self.killed = []
        self.command = [
            options.binary, "dev", "--nodes", options.nodes, "--replicas", options.replicas,
            "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}",
            "--threads", options.threads, "--partitions", options.partitions, "--dir", directory / "pool", "--enable-debug",
            *more,
        ]
        self.process = None
        self.restarted = []
        self.added = []

    def start(self):
        with open(self.directory / "sidecar.log", "wb") as log:
            # A session of its own: Ctrl-C is for the demo, which ends the sidecar itself.
            self.process = subprocess.Popen(
                [str(part) for part in self.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.environment,
            )

    def alive(self):
        """True, or a failure with the sidecar's last words."""
        if self.process.poll() is None:
            return True
        log = (self.directory / "sidecar.log").read_text(errors="replace").strip().splitlines()
        raise Failure("\n  ".join([f"the sidecar ended with code {self.process.returncode}", *log[-8:]]))

    def get(self, path):
        """Status and body of an admin request; None if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def ready(self):
        answer = self.get("/readyz")
        return answer is not None and answer[0] == 200

    def nodes(self):
        """What /v1/nodes says, or None."""
        answer = self.get("/v1/nodes")
        return json.loads(answer[1]) if answer and answer[0] == 200 else None

    def moves_settled(self):
        """Whether every partition is where it should be, and nowhere else."""
        answer = self.get("/v1/ring")
        ring = json.loads(answer[1]) if answer and answer[0] == 200 else {}
        return ring.get("state") == "settled" and not ring["jobs"]

    def kill(self, name):
        """`kill -9` for the process that is node `name` now; its pid."""
        pid = next((node.get("pid") for node in self.nodes() or [] if node["name"] == name), None)
        if not pid:
            raise Failure(f"the admin port names no process of {name}")
        os.kill(pid, signal.SIGKILL)
        self.killed.append(name)
        return pid

    def bring_back(self, name):
        """Starts node `name` as an operator would: with its own configuration, in its own directory."""
        conf = self.directory / "pool" / name / "redis.conf"
        process = subprocess.Popen(
            ["redis-server", str(conf)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=self.environment,
        )
        self.restarted.append(process)
        return f"redis-server …/{name}/redis.conf"

    def start_node(self, name):
        """A plain redis-server that the sidecar knows nothing of yet; its address, once it listens."""
        directory = self.directory / name
        directory.mkdir()
        (port,) = free_ports(1)
        with open(directory / "redis.log", "wb") as log:
            process = subprocess.Popen(
                [
                    "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "",
                    "--enable-debug-command", "yes",
                ],
                cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.added.append(process)
        for _ in range(500):
            if process.poll() is not None:
                raise Failure(f"{name} ended with code {process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return f"127.0.0.1:{port}"
            except OSError:
                time.sleep(0.02)
        raise Failure(f"{name} does not listen after 10 s")

    def operate(self, *words):
        """A command of `ringfence`, as an operator would give it."""
        command = [self.binary, *words, "--admin", f"127.0.0.1:{self.admin_port}"]
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:
            raise Failure(f"ringfence {' '.join(words)}: no answer after 30 s") from None
        if done.returncode != 0:
            raise Failure(f"ringfence {' '.join(words)}: {done.stderr.strip()}")
        return f"ringfence {' '.join(words)}"

    def stop(self):
        """Ends everything; says what did not end by itself."""
        complaints = []
        if self.process:
            self.process.send_signal(signal.SIGINT)
            try:
                code = self.process.wait(15)
                if code != 0:
                    complaints.append(f"the sidecar ended with code {code}")
            except subprocess.TimeoutExpired:
                complaints.append("the sidecar did not end on SIGINT")
                self.process.kill()
                self.process.wait()
        for process in self.added:
            process.terminate()
        for process in self.restarted + self.added:
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                pass
        left = self.processes()
        for pid in left:
            complaints.append(f"process {pid} of a node was left over")
            os.kill(pid, signal.SIGKILL)
        for process in self.restarted + self.added:
            process.wait()
        while self.processes():
            time.sleep(0.01)
        return complaints

    def processes(self):
        """Every process that works in the pool's directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/cwd").startswith(f"{self.directory}/"):
                    found.append(int(pid))
            except OSError:
                pass
        return found


class Follower:
    """Looks at something on the admin port again and again, in a thread of its own, as long as it is entered."""

    INTERVAL_S = 0.05

    def __init__(self, sidecar, seconds):
        self.sidecar = sidecar
        self.seconds = seconds
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.ended.set()
        self.thread.join(5)

    def follow(self):
        while not self.ended.wait(self.INTERVAL_S):
            self.read()


class Watcher(Follower):
    """Follows /v1/nodes, and keeps every change of a node's state with its time."""

    INTERVAL_S = 0.025

    def __init__(self, sidecar, seconds):
        super().__init__(sidecar, seconds)
        self.nodes = []
        self.changes = {}

    def read(self):
        nodes = self.sidecar.nodes()
        if nodes is None:
            return
        for node in nodes:
            changes = self.changes.setdefault(node["name"], [])
            if not changes or changes[-1][1] != node["state"]:
                changes.append((self.seconds(), node["state"], node.get("reason") or ""))
        self.nodes = nodes

    def all_in_sync(self):
        return bool(self.nodes) and all(self.is_in_sync(node) for node in self.nodes)

    @staticmethod
    def is_in_sync(node):
        return node["state"] == "in_sync" and node["in_sync"] == node["partitions"]

    def has_its_share(self, name):
        """Whether the node is there, in sync, and holds what it should hold."""
        return any(
            node["name"] == name and self.is_in_sync(node) and node["partitions"] == node["wanted"] > 0
            for node in self.nodes
        )

    def in_sync_since_kill(self, name):
        """Whether the node is in sync, having been something else since it was killed last."""
        states = [state for _, state, _ in self.changes.get(name, [])]
        fell_out = states.count("in_sync") > self.sidecar.killed.count(name)
        return fell_out and any(node["name"] == name and self.is_in_sync(node) for node in self.nodes)

    def settled(self):
        """Whether every node is in sync and has nothing left to write."""
        return self.all_in_sync() and not any(node.get("lag_ops") for node in self.nodes)


def start_pool(sidecar, screen):
    """Waits until clients can come."""
    sidecar.start()
    screen.guard = sidecar.alive
    if screen.wait_until(sidecar.ready, 60) is None:
        raise Failure("the sidecar is not ready after 60 s")


def wait_for_nodes(options, sidecar, watcher, screen):
    if screen.wait_until(watcher.all_in_sync, 60) is None:
        raise Failure("not every node is in sync 60 s after the start")
    listening = f"{options.nodes} Redis nodes behind one address, 127.0.0.1:{sidecar.port}"
    screen.event(f"{listening}; every key on {options.replicas} of them")
