"""redis-py."""

import time
from functools import partial

import pytest

from workers import run_all

STOP = "stop"


def numbers(prefix, count):
    return [f"{prefix}:{number}" for number in range(count)]


def test_shared_queues(flow):
    """LPUSH and BRPOP over several keys."""
    queues = ["orders", "emails", "invoices"]
    produced = {name: numbers(name, 200) for name in ["a", "b", "c"]}

    def produce(name):
        client = flow.client()
        for number, job in enumerate(produced[name]):
            if name == "a" and number == 100:
                flow.halfway()
            client.lpush(queues[number % 3], job)
            time.sleep(0.001)

    def consume():
        client = flow.client()
        done = []
        while (item := client.brpop(queues + ["stops"], timeout=30))[1] != STOP:
            assert item[0] in queues
            done.append(item[1])
        return done

    def produce_all():
        run_all(*(partial(produce, name) for name in produced))
        flow.client().lpush("stops", *[STOP] * 4)

    _, *received = run_all(produce_all, *[consume] * 4)
    jobs = sorted(sum(produced.values(), []))
    assert sorted(sum(received, [])) == jobs
    # What one consumer gets from one producer's queue is in the order in which it was sent.
    for done in received:
        for name in produced:
            for turn in range(3):
                mine = [int(job.split(":")[1]) for job in done if job.startswith(name)]
                mine = [number for number in mine if number % 3 == turn]
                assert mine == sorted(mine)
    assert flow.client().exists(*queues, "stops") == 0
    flow.jobs = len(jobs)


@pytest.mark.needs_7
def test_priorities(flow):
    """BLPOP and BLMPOP in order of the keys."""
    client = flow.client()
    keys = ["low", "high", "middle"]
    for number in range(300):
        client.rpush(keys[number % 3], number)
    order = [client.blpop(["high", "middle", "low"], timeout=1) for _ in range(120)]
    while batch := client.blmpop(0.2, 3, "high", "middle", "low", direction="LEFT", count=7):
        order.extend((batch[0], job) for job in batch[1])
    expected = [
        (key, str(number)) for turn, key in [(1, "high"), (2, "middle"), (0, "low")] for number in range(turn, 300, 3)
    ]
    assert order == expected
    flow.jobs = len(order)


def test_reliable_queue(flow):
    """reliable queue with BLMOVE.

    Each worker moves a job to a list of its own and removes it there when it is done; what a dead one left is taken back.
    """
    jobs = numbers("job", 300)
    todo, workers = "reliable:todo", range(3)

    def produce():
        client = flow.client()
        for number, job in enumerate(jobs):
            if number == len(jobs) // 2:
                flow.halfway()
            client.rpush(todo, job)
            time.sleep(0.002)

    def work(worker):
        client = flow.client()
        doing, done = f"reliable:doing:{worker}", []
        while job := client.blmove(todo, doing, 1.5, "LEFT", "RIGHT"):
            # Every worker "dies" over some jobs: they stay on its list.
            if int(job.split(":")[1]) % 50 != 17 + worker:
                assert client.lrem(doing, 1, job) == 1
                done.append(job)
        return done

    _, *done = run_all(produce, *(partial(work, worker) for worker in workers))
    client = flow.client()
    left = sum((client.lrange(f"reliable:doing:{worker}", 0, -1) for worker in workers), [])
    assert sorted(sum(done, []) + left) == sorted(jobs)
    for worker in workers:
        while client.lmove(f"reliable:doing:{worker}", todo, "RIGHT", "LEFT"):
            pass
    again = []
    while job := client.rpoplpush(todo, "reliable:done"):
        again.append(job)
    assert sorted(again) == sorted(left)
    flow.jobs = len(jobs)


@pytest.mark.needs_7
def test_delayed_jobs(flow):
    """BZPOPMIN and BZMPOP by due time."""
    client = flow.client()
    jobs = {f"job:{number}": (number * 7919) % 400 for number in range(400)}

    def produce():
        producer = flow.client()
        for number, (job, due) in enumerate(jobs.items()):
            if number == 200:
                flow.halfway()
            producer.zadd("delayed:b" if number % 2 else "delayed:a", {job: due})
            time.sleep(0.001)

    def consume():
        consumer = flow.client()
        done = []
        while item := consumer.bzpopmin(["delayed:a", "delayed:b"], timeout=1.5):
            done.append(item)
        return done

    _, *received = run_all(produce, consume, consume)
    assert sorted((job, due) for done in received for _, job, due in done) == sorted(
        (job, float(due)) for job, due in jobs.items()
    )
    # With everything there in advance, the order is that of the due times.
    client.zadd("delayed:all", jobs)
    taken = []
    while batch := client.bzmpop(0.2, 1, ["delayed:all"], min=True, count=25):
        taken.extend(job for job, _ in batch[1])
    assert taken == sorted(jobs, key=jobs.get)
    flow.jobs = len(jobs) * 2


@pytest.mark.parametrize("protocol", [2, 3])
def test_nothing_to_do(flow, protocol):
    """blocking pops that end without a job."""
    client = flow.client(protocol=protocol)
    for timeout in [0.1, 0.5, 1]:
        began = time.monotonic()
        assert client.brpop(["empty:1", "empty:2"], timeout=timeout) is None
        assert client.blmove("empty:1", "empty:2", 0.05) is None
        assert client.bzpopmin("empty:z", timeout=0.05) is None
        assert timeout + 0.1 <= time.monotonic() - began < timeout + 1
        assert client.ping()
    # A socket timeout shorter than the wait is the driver's to report; what it had asked for must not be lost.
    hasty = flow.client(protocol=protocol, socket_timeout=0.2, retry=None)
    with pytest.raises(Exception, match="[Tt]imeout"):
        hasty.brpop("hasty", timeout=0)
    hasty.close()
    time.sleep(0.1)
    client.lpush("hasty", "kept")
    assert client.brpop("hasty", timeout=1) == (("hasty", "kept") if protocol == 2 else ["hasty", "kept"])
    flow.jobs += 10
