"""The application whose tasks the Celery flows run. SERVER says where Redis is."""

import os
import time

import redis
from celery import Celery

URL = os.environ.get("SERVER")


def connected(name, url, visibility_timeout):
    """An application, or a client of one."""
    app = Celery(name, broker=url, backend=url)
    app.conf.update(
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "priority_steps": [0, 3, 6, 9],
            "queue_order_strategy": "priority",
            "visibility_timeout": visibility_timeout,
        },
    )
    return app


app = connected("flows", URL, float(os.environ.get("VISIBILITY_TIMEOUT", 3600)))


def store():
    return redis.Redis.from_url(URL)


@app.task
def add(left, right):
    return left + right


@app.task
def total(values):
    return sum(values)


@app.task(bind=True, max_retries=3)
def flaky(self, number):
    """Fails at its first and second try."""
    tries = store().incr(f"tries:{number}")
    if tries < 3:
        raise self.retry(countdown=0.1 * tries)
    return number


@app.task
def fails(text):
    raise ValueError(text)


@app.task
def note(key, value):
    """Leaves a trace that says in which order tasks ran."""
    store().rpush(key, value)


@app.task
def now():
    return time.time()


@app.task(acks_late=True, reject_on_worker_lost=True)
def slow(key, number):
    """Its first run takes for ever."""
    if store().rpush(key, number) <= 2:
        time.sleep(600)
    return number
