"""The clients of the second act: they work as a Zaqar service does, with its own driver, on queues that are spread over nodes.

Jobs are posted, claimed and deleted; one in twenty is spoilt: it is given back, and claimed again, until it is a dead
letter. Each worker has a queue of its own, because Zaqar's claims do not keep from each other what stands behind something
that was given back, on whichever Redis. Beside that there is an archive, in which messages stay (one in six is deleted at
some time): a reader goes through it again and again, page by page, while it grows.
"""

import itertools
import random
import time
from collections import Counter

from clients import Account, Clients
from zaqar_driver import ERRORS, ZaqarDriver

ARCHIVE, DEAD = "archive", "dead"
POSTERS, WORKERS = 3, 4
JOBS = [f"jobs{number}" for number in range(WORKERS)]
JOBS_PER_S, ARCHIVED_PER_S = 150, 300
ARCHIVED_AT_FIRST = 1200
SPOILT, DELETED = 1 / 20, 1 / 6
MAX_CLAIMS = 2
PAGE = 20
# Of one walk; it has about 200.
PAGES_MAX = 5000
POLL_S = 0.02


class FlowLedger(Account):
    """What was posted, what became of it, and what walks through the archive have seen."""

    def __init__(self, seconds):
        super().__init__(seconds)
        # Of the jobs: the body of what was posted, and of what was claimed, by id.
        self.posted, self.bodies = {}, {}
        self.held, self.deleted, self.dead = set(), Counter(), Counter()
        self.claimed_twice = 0
        # Of the archive: numbers in the order of posting, by id; and what is to be deleted, until somebody takes it.
        self.staying, self.leaving = {}, []
        self.walks = self.pages = self.missed = self.repeated = self.reordered = 0

    def posted_jobs(self, ids, bodies):
        with self.lock:
            self.posted.update(zip(ids, bodies))
            self.acknowledged_count += len(ids)

    def claimed(self, messages):
        with self.lock:
            self.claimed_twice += self.not_free(messages)
            self.held.update(messages)
        self.keep_bodies(messages)

    def not_free(self, ids):
        """How many of them are in somebody's hands, or done with: nobody may be given those."""
        return sum(message in self.held or message in self.deleted or message in self.dead for message in ids)

    def keep_bodies(self, messages):
        with self.lock:
            self.bodies.update(messages)

    def became_dead(self, ids):
        with self.lock:
            self.claimed_twice += self.not_free(ids)
            self.dead.update(ids)
            self.delivered_count += len(ids)

    def given_back(self, messages):
        with self.lock:
            self.held.difference_update(messages)

    def was_deleted(self, message):
        with self.lock:
            self.held.discard(message)
            self.deleted[message] += 1
            self.delivered_count += 1

    def archived(self, ids, numbers, leaves):
        with self.lock:
            for message, number, leaving in zip(ids, numbers, leaves):
                if leaving:
                    self.leaving.append(message)
                else:
                    self.staying[message] = number

    def what_stays(self):
        with self.lock:
            return set(self.staying)

    def take_leaving(self, rng, preferred=None):
        """One that may be deleted now; `preferred` or none if one is preferred."""
        with self.lock:
            if preferred is not None:
                if preferred not in self.leaving:
                    return None
                self.leaving.remove(preferred)
                return preferred
            return self.leaving.pop(rng.randrange(len(self.leaving))) if self.leaving else None

    def walked(self, before, seen, pages):
        """`before`: what was there when the walk began, and stays. `seen`: ids in the order in which they came."""
        distinct = set(seen)
        with self.lock:
            numbers = [self.staying[message] for message in seen if message in self.staying]
            self.walks += 1
            self.pages += pages
            self.missed += len(before - distinct)
            self.repeated += len(seen) - len(distinct)
            self.reordered += sum(one > other for one, other in itertools.pairwise(numbers))

    def lost(self):
        return len(self.posted.keys() - self.deleted.keys() - self.dead.keys())

    def duplicated(self):
        """Deleted twice, dead twice, deleted and dead, or claimed while somebody else had it."""
        outcomes = self.deleted + self.dead
        return sum(count - 1 for count in outcomes.values()) + self.claimed_twice

    def changed(self):
        """Claimed with another body than it was posted with, or never posted."""
        return sum(self.posted.get(message) != body for message, body in self.bodies.items())

    def spoilt(self):
        return {message for message, body in self.posted.items() if body["spoilt"]}


class Flow(Clients):
    """All clients of the second act."""

    ERRORS = ERRORS

    def __init__(self, port, seed, seconds):
        super().__init__(port, FlowLedger(seconds))
        self.rng = random.Random(f"{seed}-flow")
        self.numbers = itertools.count()
        # How many are there in the end.
        self.jobs_left = None
        for target in [*[self.post] * POSTERS, self.archive, self.thin_out, self.read]:
            self.producers.append(self.thread(target, random.Random(self.rng.random())))
        self.consumers = [self.thread(self.work, jobs) for jobs in JOBS]

    def driver(self):
        return ZaqarDriver(self.port)

    def description(self):
        rate = JOBS_PER_S + ARCHIVED_PER_S
        return f"{POSTERS} posters, {WORKERS} workers, an archive and its reader, {rate} messages/s"

    def prepare(self):
        """The queues, and an archive of several segments."""
        driver = self.driver()
        for queue in [ARCHIVE, DEAD]:
            self.call("create queue", lambda: driver.create_queue(queue))
        for jobs in JOBS:
            self.call("create queue", lambda: driver.create_queue(jobs, DEAD, MAX_CLAIMS))
        for _ in range(ARCHIVED_AT_FIRST // PAGE):
            self.archive_some(driver, self.rng, PAGE)

    def paced(self, per_s, count):
        """Yields as often as `count` messages are to be sent, until producing ends; who is late catches up by 0.2 s."""
        next_at = time.perf_counter()
        while self.producing.is_set():
            yield
            next_at = max(next_at + count / per_s, time.perf_counter() - 0.2)
            time.sleep(max(next_at - time.perf_counter(), 0))

    def post(self, rng):
        driver = self.driver()
        for _ in self.paced(JOBS_PER_S / POSTERS, 3):
            numbers = [next(self.numbers) for _ in range(rng.randint(1, 5))]
            bodies = [{"number": number, "spoilt": rng.random() < SPOILT} for number in numbers]
            ids, done = self.call("post", lambda: driver.post(rng.choice(JOBS), bodies))
            if done:
                self.ledger.posted_jobs(ids, bodies)

    def archive(self, rng):
        driver = self.driver()
        for _ in self.paced(ARCHIVED_PER_S, 10):
            self.archive_some(driver, rng, 10)

    def archive_some(self, driver, rng, count):
        numbers = [next(self.numbers) for _ in range(count)]
        leaves = [rng.random() < DELETED for _ in range(count)]
        ids, done = self.call("post", lambda: driver.post(ARCHIVE, [{"number": number} for number in numbers]))
        if done:
            self.ledger.archived(ids, numbers, leaves)

    def thin_out(self, rng):
        driver = self.driver()
        for _ in self.paced(ARCHIVED_PER_S * DELETED, 1):
            message = self.ledger.take_leaving(rng)
            if message:
                self.delete_archived(driver, message)

    def delete_archived(self, driver, message):
        self.call("delete", lambda: driver.delete(ARCHIVE, message))

    def read(self, rng):
        driver = self.driver()
        # On a slow machine one walk may last as long as all the traffic: that one is not given up.
        self.walk(driver, rng)
        while self.producing.is_set():
            self.walk(driver, rng, self.producing.is_set)

    def pages(self, driver, queue, claimed=False):
        """Page after page, until one is empty (or an error); a walk that does not end is an error too."""
        marker = None
        for _ in range(PAGES_MAX):
            read, done = self.call("list", lambda: driver.page(queue, marker, PAGE, claimed))
            if not done or not read[0]:
                return
            page, marker = read
            yield page
        self.ledger.error("list", ValueError(f"no end after {PAGES_MAX} pages"))

    def walk(self, driver, rng, go_on=lambda: True):
        """Once through the archive. If what a page ends with is to be deleted, that is done before the next one. A walk
        that does not go on to its end is not counted."""
        before, seen, count = self.ledger.what_stays(), [], 0
        for count, page in enumerate(self.pages(driver, ARCHIVE), 1):
            seen.extend(page)
            if self.ledger.take_leaving(rng, seen[-1]):
                self.delete_archived(driver, seen[-1])
            if not go_on():
                return
        self.ledger.walked(before, seen, count)

    def work(self, jobs):
        driver = self.driver()
        while self.consuming.is_set():
            # Asked before the call: only then does an empty queue stay empty.
            more_may_come = any(thread.is_alive() for thread in self.producers)
            claimed, done = self.call("claim", lambda: driver.claim(jobs, 10))
            if not done:
                continue
            claim, messages = claimed
            if messages:
                self.work_on(driver, jobs, claim, messages)
            elif claim and not more_may_come:
                return
            elif claim:
                time.sleep(POLL_S)

    def work_on(self, driver, jobs, claim, messages):
        self.ledger.claimed(messages)
        spoilt = [message for message, body in messages.items() if body["spoilt"]]
        for message in messages:
            if message in spoilt:
                continue
            _, done = self.call("delete", lambda: driver.delete(jobs, message, claim))
            if done:
                self.ledger.was_deleted(message)
        if spoilt:
            # From here on somebody else may have them.
            self.ledger.given_back(spoilt)
            self.call("release", lambda: driver.release(jobs, claim))

    def read_what_is_left(self):
        """Through the proxy, in the end: the archive once more, the dead letters, and how many jobs are left."""
        driver = self.driver()
        self.walk(driver, self.rng)
        for page in self.pages(driver, DEAD, claimed=True):
            self.ledger.became_dead(list(page))
            self.ledger.keep_bodies(page)
        counts = [self.call("count", lambda: driver.count(jobs))[0] for jobs in JOBS]
        self.jobs_left = sum(counts) if None not in counts else None
