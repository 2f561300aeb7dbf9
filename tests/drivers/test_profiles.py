"""What the drivers were seen to touch in one transaction or script must, with their profile, live in one partition."""

import subprocess

import pytest

from servers import binary

ID = "5ae4ef6d-c5dd-4b1c-8bb4-2bc9ec3ca36a"
TOGETHER = {
    "celery": [
        ["unacked", "unacked_index"],
        ["_kombu.binding.celery", "_kombu.binding_permanent.celery"],
        ["_kombu.binding.reply.celery.pidbox", "_kombu.binding_deadlines"],
        [f"celery-taskset-meta-{ID}", *(f"celery-taskset-meta-{ID}.{part}" for part in "jtsdc")],
        ["celery", *(f"celery\x06\x16{priority}" for priority in [3, 6, 9])],
    ],
    "rq": [["rq:queues", "rq:queue:high", "rq:wip:high", f"rq:job:{ID}", "rq:worker:5a", "rq:worker:5a:executions"]],
    "sidekiq": [["stat:processed", "stat:processed:2026-11-28", "stat:failed", "stat:failed:2026-11-28"]],
    "bullmq": [[f"bull:work:{each}" for each in ["", "id", "wait", "active", "delayed", "events", "marker", "meta", "1", "1:lock"]]],
}


@pytest.mark.parametrize("profile, keys", [(profile, keys) for profile, sets in TOGETHER.items() for keys in sets])
def test_together(profile, keys):
    words = [binary(), "explain", "--profile", profile, "DEL", *keys]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "goes       to one partition" in said, said
