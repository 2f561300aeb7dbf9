"""Celery."""

import sys
import threading
import time

import celery
import pytest
from celery import chain, chord, group

import celery_app
from servers import wait_until

pytestmark = pytest.mark.profile("celery")


@pytest.fixture
def app(flow):
    """A client of the application in celery_app.py."""
    app = celery_app.connected("client", flow.url, 3600)
    yield app
    app.control.purge()
    app.close()


def task(app, name, *args):
    return app.signature(f"celery_app.{name}", args)


def worker(flow, app, name, *options, **environment):
    process = flow.spawn(
        sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-n", f"{name}@flow", "-l", "INFO",
        "--without-mingle", "--without-gossip", *options, **environment,
    )
    wait_until(lambda: process.poll() is None and app.control.ping([f"{name}@flow"], timeout=0.3), f"worker {name} answers", 30)
    return process


def test_tasks(flow, app):
    """tasks, retries, countdowns, groups, chords."""
    worker(flow, app, "one", "-c", "2")
    worker(flow, app, "two", "-c", "3", "--pool", "threads")
    results = [task(app, "add", number, number).delay() for number in range(150)]
    flow.halfway()
    results += [task(app, "add", number, number).delay() for number in range(150, 300)]
    assert [result.get(timeout=30) for result in results] == [2 * number for number in range(300)]

    retried = group(task(app, "flaky", number) for number in range(40)).apply_async()
    due = time.time() + 1
    later = [task(app, "now").apply_async(countdown=1) for _ in range(20)]
    chords = [chord((task(app, "add", each, number) for each in range(10)), task(app, "total")).delay() for number in range(10)]
    chained = chain(task(app, "add", 1, 2), *(task(app, "add", each) for each in range(10))).delay()
    failed = [task(app, "fails", f"no {number}").delay() for number in range(10)]

    assert retried.get(timeout=30) == list(range(40))
    counts = flow.client().mget(f"tries:{number}" for number in range(40))
    assert counts == ["3"] * 40
    assert all(result.get(timeout=30) >= due - 0.05 for result in later)
    assert [result.get(timeout=30) for result in chords] == [45 + 10 * number for number in range(10)]
    assert chained.get(timeout=30) == 48
    for number, result in enumerate(failed):
        with pytest.raises(ValueError, match=f"no {number}"):
            result.get(timeout=30)
    # Nothing is left that nobody has acknowledged.
    wait_until(lambda: not flow.client().exists("unacked", "unacked_index", "celery"), "all is acknowledged", 10)
    flow.jobs = 300 + 40 * 3 + 20 + 110 + 11 + 10


def test_priorities(flow, app):
    """priorities: BRPOP over several keys, in their order."""
    for number in range(100):
        task(app, "note", "order", number).apply_async(priority=[9, 0, 6, 3][number % 4])
        if number == 50:
            flow.halfway()
    worker(flow, app, "single", "-c", "1", "--pool", "solo")
    order = wait_until(lambda: (done := flow.client().lrange("order", 0, -1)) and len(done) == 100 and done, "100 done")
    assert order == [str(number) for turn in [1, 3, 2, 0] for number in range(turn, 100, 4)]
    flow.jobs = 100


def test_killed_worker(flow, app):
    """visibility timeout: what a killed worker had is done by another."""
    first = worker(flow, app, "doomed", "-c", "2", "--pool", "threads", VISIBILITY_TIMEOUT="2")
    results = [task(app, "slow", "slow", number).delay() for number in range(20)]
    wait_until(lambda: flow.client().llen("slow") == 2, "two tasks have begun")
    flow.halfway()
    first.kill()
    first.wait()
    time.sleep(2)
    # A worker looks for such tasks when it starts, and then every ten seconds.
    worker(flow, app, "heir", "-c", "2", "--pool", "threads", VISIBILITY_TIMEOUT="2")
    assert sorted(result.get(timeout=40) for result in results) == list(range(20))
    counts = [flow.client().lrange("slow", 0, -1).count(str(number)) for number in range(20)]
    assert sorted(counts) == [1] * 18 + [2] * 2
    flow.jobs = 22


def test_remote_control(flow, app):
    """remote control and events: broadcasts and their answers."""
    names = ["one@flow", "two@flow"]
    for name in names:
        worker(flow, app, name[:3], "-c", "1", "--pool", "threads", "-E")
    for turn in range(30):
        if turn == 15:
            flow.halfway()
        assert sorted(name for answer in app.control.ping(timeout=5, limit=2) for name in answer) == names
    inspect = app.control.inspect(timeout=5, limit=2)
    assert all("celery_app.add" in registered for registered in inspect.registered().values())
    assert sorted(inspect.stats()) == names and inspect.active() == {name: [] for name in names}
    # Two that wait for their time; one of them is revoked.
    kept, revoked = (task(app, "add", 1, 1).apply_async(countdown=2) for _ in range(2))
    waiting = lambda: [each["request"]["id"] for all in inspect.scheduled().values() for each in all]
    wait_until(lambda: sorted(waiting()) == sorted([kept.id, revoked.id]), "both are known to a worker")
    assert len(app.control.revoke(revoked.id, reply=True, timeout=5, limit=2)) == 2
    assert kept.get(timeout=10) == 2
    with pytest.raises(celery.exceptions.TaskRevokedError):
        revoked.get(timeout=10)

    seen, listening = [], threading.Event()
    # The event of the one that was kept comes behind its result: perhaps not before somebody listens.
    succeeded = lambda event: event["uuid"] == kept.id or seen.append(event["uuid"])
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-succeeded": succeeded})
        receiver.on_consume_ready = lambda *_arguments, **_named: listening.set()
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        thread.start()
        assert listening.wait(10)
        results = [task(app, "add", number, 1).delay() for number in range(100)]
        assert [result.get(timeout=20) for result in results] == [number + 1 for number in range(100)]
        wait_until(lambda: len(seen) >= 100, "100 events")
        receiver.should_stop = True
        thread.join(10)
    assert sorted(seen) == sorted(result.id for result in results)
    flow.jobs = 30 + 2 + 100
