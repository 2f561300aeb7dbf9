"""What the jobs of the RQ flows do."""

import time

from rq import get_current_job


def add(left, right):
    return left + right


def fails(text):
    raise ValueError(text)


def flaky(key):
    """Fails twice."""
    if get_current_job().connection.incr(key) < 3:
        raise ValueError("not yet")
    return "at last"


def total():
    """The sum of what the jobs that this one waited for returned."""
    return sum(job.return_value() for job in get_current_job().fetch_dependencies())


def note(key, value):
    get_current_job().connection.rpush(key, value)


def sleep(seconds):
    time.sleep(seconds)


def now():
    return time.time()
