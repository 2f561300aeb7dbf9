"""Zaqar: its own tests of its Redis storage, on one Redis and on pools in which every queue is striped.

A segment takes five messages, so that the suite's small queues are cut as well. Of every single test the pool's verdict must
be the one of plain Redis, failures included: those are Zaqar's own. A run takes a minute in which it mostly waits for something
to expire; so those of one driver run side by side. (With more at once, two cores would not answer within Zaqar's 0.1 s.)
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import zaqar_suite
from servers import PlainRedis, Pool

STRIPED = ["--profile", "zaqar", "--segment-len", 5]
SERVERS = {
    "redis": PlainRedis,
    "three copies": lambda directory: Pool(directory, threads=1, killing=False, arguments=STRIPED),
    "two copies": lambda directory: Pool(directory, threads=2, killing=False, replicas=2, arguments=STRIPED),
}
# They speak RESP3 and RESP2.
DRIVERS = ["redis-py 8", "redis-py 5"]
# How many tests passed on plain Redis when the versions were pinned: a suite that runs less has not been installed as a whole.
PASSED_MIN = 135

pytestmark = pytest.mark.timeout(zaqar_suite.LIMIT_S + 60)


class Run:
    """The suite on a server of its own."""

    def __init__(self, executor, directory, server, driver):
        self.server = SERVERS[server](directory)
        self.future = executor.submit(self.timed, directory / "suite", driver)

    def timed(self, directory, driver):
        began = time.monotonic()
        verdicts = zaqar_suite.run(self.server.port, directory, older=driver == "redis-py 5")
        return verdicts, time.monotonic() - began

    def result(self):
        """Waits for the end: verdicts, and how many seconds it took."""
        return self.future.result()


@pytest.fixture(scope="module", params=DRIVERS)
def runs(request, tmp_path_factory):
    """Those of one driver, by server."""
    started = {}
    try:
        with ThreadPoolExecutor(len(SERVERS)) as executor:
            for server in SERVERS:
                started[server] = Run(executor, tmp_path_factory.mktemp("zaqar"), server, request.param)
            yield started
    finally:
        for run in started.values():
            run.server.stop()


@pytest.mark.parametrize("server", SERVERS)
def test_storage(request, runs, remark, server):
    plain, _ = runs["redis"].result()
    verdicts, seconds = runs[server].result()
    remark(f"Zaqar's storage tests, {request.node.callspec.params['runs']}, {server}: {verdicts} ({seconds:.0f} s)")
    differing = [test for test in {**plain, **verdicts} if verdicts.get(test) != plain.get(test)]
    assert not differing, "\n".join(
        f"{test}: {verdicts.get(test)}, on plain Redis {plain.get(test)}\n"
        + (verdicts.reasons.get(test) or plain.reasons.get(test, ""))
        for test in differing
    )
    assert verdicts.count("passed") >= PASSED_MIN, f"{verdicts}, and {PASSED_MIN} used to pass"
    runs[server].server.check()
