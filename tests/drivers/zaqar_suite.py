"""Zaqar's own tests of its Redis storage, as they are in its package.

They need a Python environment of their own, with what OpenStack needs (zaqar/requirements.txt); an older redis-py is laid over
it (zaqar/redis-5.txt). That is what `scripts/setup drivers` installs.

Zaqar gives a server 0.1 s to answer, and that stays so. The suite takes second place to the servers when cores are short: to it, it
does no harm to wait.
"""

import os
import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from servers import ROOT

SUITE = Path("zaqar/tests/unit/storage/test_impl_redis.py")
LIMIT_S = 200
# Times and numbers of attempts are those of Zaqar's own configuration for these tests.
CONFIGURATION = """
[drivers]
transport = wsgi
message_store = redis
management_store = redis

[drivers:message_store:redis]
uri = {url}
max_reconnect_attempts = 3
reconnect_sleep = 0.1

[drivers:management_store:redis]
uri = {url}
max_reconnect_attempts = 3
reconnect_sleep = 0.1
"""
POOLED = "[DEFAULT]\npooling = True\n\n[pooling:catalog]\nenable_virtual_pool = True\n"


class Verdicts(dict):
    """What became of every test: `passed`, `failed` or `skipped`; and why it failed."""

    def __init__(self, report):
        super().__init__()
        self.reasons = {}
        for case in ElementTree.parse(report).iter("testcase"):
            # In front of the class is where the package was installed.
            test = f"{case.get('classname').rsplit('.', 1)[-1]}::{case.get('name')}"
            marks = {mark.tag: mark.text for mark in case}
            if wrong := {"failure", "error"} & marks.keys():
                self[test] = "failed"
                self.reasons[test] = "\n".join(marks[each] or "" for each in wrong)
            elif test not in self:
                self[test] = "skipped" if "skipped" in marks else "passed"

    def count(self, verdict):
        return Counter(self.values())[verdict]

    def __str__(self):
        return ", ".join(f"{self.count(verdict)} {verdict}" for verdict in ["passed", "skipped", "failed"])


def packages(directory):
    """Where the packages of an environment are, be it a virtual one or not (see scripts/setup)."""
    found = [*directory.glob("lib/python3*/site-packages"), *directory.glob("packages")]
    assert found, f"nothing is installed in {directory.name}: run `scripts/setup drivers`"
    return found[0]


def run(port, directory, older=False, only=()):
    """Runs the suite, or `only` these tests of it, against the server at `port`; with redis-py 5 if `older`."""
    environment, overlay = ROOT / ".venv-zaqar", ROOT / ".venv-zaqar-redis-5"
    path = [ROOT / "tests" / "drivers" / "zaqar", *([packages(overlay)] if older else []), packages(environment)]
    python, suite = environment / "bin" / "python", packages(environment) / SUITE
    url = f"redis://127.0.0.1:{port}"
    directory.mkdir()
    (directory / "wsgi_redis.conf").write_text(CONFIGURATION.format(url=url))
    (directory / "wsgi_redis_pooled.conf").write_text(POOLED + CONFIGURATION.format(url=url))
    report, log = directory / "report.xml", directory / "suite.log"
    with open(log, "wb") as out:
        subprocess.run(
            [
                "nice", python if python.exists() else "python3", "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider", "-W", "ignore",
                "--timeout=60", "--tb=short", f"--junit-xml={report}",
                *([f"{suite}::{test}" for test in only] or [suite]),
            ],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory, timeout=LIMIT_S, start_new_session=True,
            env={
                **os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1",
                "ZAQAR_TEST_REDIS": "1", "ZAQAR_TEST_SLOW": "1", "ZAQAR_TEST_REDIS_URL": url,
                "ZAQAR_TESTS_CONFIGS_DIR": str(directory),
            },
        )
    assert report.exists(), "the suite did not run:\n" + log.read_text(errors="replace")[-4000:]
    return Verdicts(report)
