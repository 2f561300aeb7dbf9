"""Clients of one Redis at one address: how they connect and call, and the account of what they saw.

They use redis-py as anybody would, with two settings: a call is never repeated by the driver (an error must show here,
and not be hidden by a second try), and a call that takes five seconds is an error.
"""

import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class Account:
    """What all clients of an act saw together."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.lock = threading.Lock()
        self.acknowledged_count = self.delivered_count = self.error_count = 0
        self.errors = []
        self.longest_pause = (0.0, "", 0.0)

    def error(self, operation, error):
        with self.lock:
            self.error_count += 1
            if len(self.errors) < 10:
                self.errors.append(f"{self.seconds():.2f} s, {operation}: {type(error).__name__}: {error}")

    def waited(self, operation, began_s, duration_s):
        if duration_s > self.longest_pause[0]:
            with self.lock:
                self.longest_pause = max(self.longest_pause, (duration_s, operation, began_s))


class Clients:
    """All clients of an act, each with a connection and a thread of its own. Who makes one fills in its threads."""

    # What a call may end with that an application would see.
    ERRORS = redis.RedisError

    def __init__(self, port, ledger):
        self.port = port
        self.ledger = ledger
        self.seconds = ledger.seconds
        self.producing = threading.Event()
        self.consuming = threading.Event()
        self.producers = []
        self.consumers = []

    def thread(self, target, *args):
        return threading.Thread(target=self.guarded, args=(target, args), daemon=True)

    def guarded(self, target, args):
        """A client that ends by a mistake, the proxy's or ours, must not look like one that had nothing more to do."""
        try:
            target(*args)
        except Exception as error:  # whatever a strange reply made of it
            self.ledger.error(target.__name__, error)

    def __enter__(self):
        self.producing.set()
        self.consuming.set()
        return self

    def __exit__(self, *_exception):
        self.stop_producing(0)
        self.stop()

    def start(self):
        for thread in self.producers + self.consumers:
            thread.start()

    def stop_producing(self, timeout_s=15):
        self.producing.clear()
        for thread in self.producers:
            if thread.is_alive():
                thread.join(timeout_s)

    def drained(self):
        """Consumers end when the producers have ended and nothing is left for them."""
        return not any(thread.is_alive() for thread in self.consumers)

    def stop(self):
        self.consuming.clear()
        for thread in self.consumers:
            if thread.is_alive():
                thread.join(10)

    def client(self):
        return redis.Redis(
            host="127.0.0.1", port=self.port, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    def call(self, operation, function):
        """The reply and True, or None and False: an error that the application sees."""
        began_s = self.seconds()
        began = time.perf_counter()
        try:
            return function(), True
        except self.ERRORS as error:
            self.ledger.error(operation, error)
            time.sleep(0.05)
            return None, False
        finally:
            self.ledger.waited(operation, began_s, time.perf_counter() - began)
