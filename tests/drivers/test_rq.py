"""RQ."""

import sys
import time
from datetime import timedelta

import pytest
import redis
from rq import Queue, Retry, Worker
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError
from rq.job import Job

import rq_jobs
from servers import wait_until

pytestmark = pytest.mark.profile("rq")


@pytest.fixture
def connection(flow):
    return redis.Redis(port=flow.port)


def workers(flow, connection, count, *options):
    known = Worker.count(connection)
    started = [flow.spawn(sys.executable, "-m", "rq.cli", "worker", "-u", flow.url, "--quiet", *options) for _ in range(count)]
    wait_until(lambda: flow.alive() and Worker.count(connection) == known + count, "the workers have registered", 30)
    return started


def ended(flow, jobs, status="finished", timeout_s=30):
    """Waits until all have that status."""
    left = list(jobs)
    end = time.monotonic() + timeout_s
    while left := [job for job in left if job.get_status(refresh=True) != status]:
        flow.alive()
        assert time.monotonic() < end, {job.description: job.get_status() for job in left}
        time.sleep(0.02)


def test_jobs(flow, connection):
    """jobs, results, failures and their registry, retries."""
    high, low = Queue("high", connection=connection), Queue("low", connection=connection)
    options = ["-w", "rq.worker.SimpleWorker", "high", "low"]
    workers(flow, connection, 3, *options)
    jobs = []
    for number in range(300):
        if number == 150:
            flow.halfway()
        jobs.append((low if number % 3 else high).enqueue(rq_jobs.add, number, 1))
    bad = [low.enqueue(rq_jobs.fails, f"no {number}") for number in range(20)]
    flaky = [high.enqueue(rq_jobs.flaky, f"flaky:{number}", retry=Retry(max=3)) for number in range(20)]
    ended(flow, jobs + flaky)
    ended(flow, bad, "failed")
    assert [job.return_value() for job in jobs] == [number + 1 for number in range(300)]
    assert [job.return_value() for job in flaky] == ["at last"] * 20
    assert connection.mget(f"flaky:{number}" for number in range(20)) == [b"3"] * 20
    assert sorted(low.failed_job_registry.get_job_ids()) == sorted(job.id for job in bad)
    for number, job in enumerate(bad):
        assert f"ValueError: no {number}" in job.latest_result().exc_string
    finished = high.finished_job_registry.get_job_ids() + low.finished_job_registry.get_job_ids()
    assert sorted(finished) == sorted(job.id for job in jobs + flaky)
    # Failed jobs go back to the queue, and fail again.
    assert sum(low.failed_job_registry.requeue(job) is not None for job in bad[:5]) == 5
    wait_until(lambda: len(low.failed_job_registry) == 20 and low.count == 0, "they have failed again")
    assert low.started_job_registry.count == high.started_job_registry.count == 0
    flow.jobs = 345


def test_dependencies(flow, connection):
    """dependencies, results that are waited for, unique jobs."""
    queue = Queue("deps", connection=connection)
    with pytest.raises(DuplicateJobError):
        for _ in range(2):
            queue.enqueue(rq_jobs.add, 1, 2, job_id="only-one", unique=True)
    sums = []
    for number in range(20):
        if number == 10:
            flow.halfway()
        parts = queue.enqueue_many([Queue.prepare_data(rq_jobs.add, (number, part)) for part in range(5)])
        sums.append(queue.enqueue(rq_jobs.total, depends_on=parts))
    workers(flow, connection, 2, "-w", "rq.worker.SimpleWorker", "deps")
    results = [job.latest_result(timeout=30) for job in sums]
    assert [result.return_value for result in results] == [5 * number + 10 for number in range(20)]
    # One worker for the chain: with two, RQ sometimes forgets a dependent, on a single Redis too.
    line = Queue("line", connection=connection)
    last = line.enqueue(rq_jobs.note, "chain", 0)
    for number in range(1, 50):
        last = line.enqueue(rq_jobs.note, "chain", number, depends_on=last)
    workers(flow, connection, 1, "-w", "rq.worker.SimpleWorker", "line")
    ended(flow, [last])
    assert connection.lrange("chain", 0, -1) == [str(number).encode() for number in range(50)]
    assert queue.deferred_job_registry.count == line.deferred_job_registry.count == 0
    flow.jobs = 1 + 20 * 6 + 50


def test_schedule_and_timeouts(flow, connection):
    """scheduler, timeouts and stopped jobs in forked workers."""
    queue = Queue("timed", connection=connection)
    begin = time.time()
    later = [queue.enqueue_in(timedelta(seconds=1), rq_jobs.now) for _ in range(30)]
    # However long that has taken: nobody moves them before there are workers.
    assert queue.scheduled_job_registry.count == 30
    workers(flow, connection, 2, "--with-scheduler", "timed")
    flow.halfway()
    plain = [queue.enqueue(rq_jobs.add, number, number) for number in range(30)]
    endless = queue.enqueue(rq_jobs.sleep, 60, job_timeout=1)
    ended(flow, later + plain)
    # RQ's schedule knows whole seconds.
    assert all(job.return_value() >= int(begin + 1) for job in later)
    assert [job.return_value() for job in plain] == [2 * number for number in range(30)]
    ended(flow, [endless], "failed")
    assert "JobTimeoutException" in endless.latest_result().exc_string
    stopped = queue.enqueue(rq_jobs.sleep, 60)
    wait_until(lambda: Job.fetch(stopped.id, connection).worker_name, "it runs")
    send_stop_job_command(connection, stopped.id)
    ended(flow, [stopped], "stopped")
    canceled = queue.enqueue_in(timedelta(hours=1), rq_jobs.now)
    canceled.cancel()
    assert Job.fetch(canceled.id, connection).get_status() == "canceled" and queue.scheduled_job_registry.count == 0
    flow.jobs = 63
